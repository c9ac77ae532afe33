import { describe, expect, it } from 'vitest';
import { binLabel } from './names';
import { fromOf, rangeOf } from './range';

describe('bins', () => {
  it('are named by category, by both edges, or by the one that they have', () => {
    expect(binLabel({ name: 'other', low: null, high: null }, String)).toBe('other');
    expect(binLabel({ name: 'other', low: null, high: null }, String, { other: 'outros' })).toBe('outros');
    expect(binLabel({ name: null, low: 0, high: 0.5 }, String)).toBe('0 – 0.5');
    expect(binLabel({ name: null, low: 7, high: 7 }, String)).toBe('7');
    expect(binLabel({ name: null, low: 1, high: null }, String)).toBe('≥ 1');
    expect(binLabel({ name: null, low: null, high: 1 }, String)).toBe('< 1');
    expect(binLabel({ name: null, low: null, high: null }, String)).toBe('–');
  });
});

describe('the time that the page looks at', () => {
  it('is whole minutes back from now, and a day when the address says nonsense', () => {
    expect(rangeOf('banana')).toBe('24h');
    expect(fromOf('1h', Date.UTC(2026, 0, 1, 12, 0, 30))).toBe('2026-01-01T11:00:00.000Z');
  });
});
