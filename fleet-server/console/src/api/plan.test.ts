import { describe, expect, it } from 'vitest';
import { isAmount, toAmount, worsening } from './plan';

describe('amounts', () => {
  it('are what the engine accepts', () => {
    for (const good of ['1', '25', '100%', '12.5%', '0.001%']) expect(isAmount(good), good).toBe(true);
    for (const bad of ['', '0', '0%', '-1', '101%', '1.0001%', 'all', '1e3'])
      expect(isAmount(bad), bad).toBe(false);
    expect(toAmount(' 3 ')).toBe(3);
    expect(toAmount('25%')).toBe('25%');
  });
});

describe('worsening', () => {
  it('is positive when the new release is worse', () => {
    expect(worsening('accuracy', 0.8, 0.97)).toBeCloseTo(0.17);
    expect(worsening('latency_p95', 120, 100)).toBeCloseTo(0.2);
    expect(worsening('error_rate', 0.02, 0.01)).toBeCloseTo(0.01);
  });
});
