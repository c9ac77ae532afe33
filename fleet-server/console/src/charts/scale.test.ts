import { describe, expect, it } from 'vitest';
import { coarsen, linear, linePath, niceTicks, shares } from './scale';

describe('ticks', () => {
  it('are round and cover the data', () => {
    expect(niceTicks(0, 0.93)).toEqual([0, 0.5, 1]);
    expect(niceTicks(0.9, 0.98)).toEqual([0.9, 0.92, 0.94, 0.96, 0.98]);
    for (const [low, high] of [
      [-3, 17],
      [0, 1e-6],
      [5, 5],
      [0, 0],
    ] as const) {
      const ticks = niceTicks(low, high);
      expect(ticks[0]).toBeLessThanOrEqual(low);
      expect(ticks.at(-1)).toBeGreaterThanOrEqual(high);
      expect(ticks.length).toBeGreaterThan(1);
      expect(ticks.length).toBeLessThan(12);
    }
  });

  it('survive values that are no numbers', () => {
    expect(niceTicks(Number.NaN, 1)).toEqual([0, 1]);
  });
});

describe('lines', () => {
  it('break where nothing was measured', () => {
    const scale = linear([0, 10], [0, 10]);
    const path = linePath(
      [
        { x: 0, y: 1 },
        { x: 1, y: null },
        { x: 2, y: 3 },
        { x: 3, y: 4 },
      ],
      scale,
      scale,
    );
    expect(path).toBe('M0.0 1.0M2.0 3.0L3.0 4.0');
  });
});

describe('distributions', () => {
  it('are shares, and zero when nothing was counted', () => {
    expect(shares([1, 3])).toEqual([0.25, 0.75]);
    expect(shares([0, 0])).toEqual([0, 0]);
  });

  it('keep their sum when drawn small', () => {
    const counts = Array.from({ length: 101 }, (_, index) => index);
    const small = coarsen(counts, 29);
    expect(small.length).toBeLessThanOrEqual(29);
    expect(small.reduce((a, b) => a + b)).toBe(counts.reduce((a, b) => a + b));
  });
});
