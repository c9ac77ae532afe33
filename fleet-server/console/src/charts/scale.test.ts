import { describe, expect, it } from 'vitest';
import { coarsen, DAY, linear, linePath, niceTicks, shares, timeTicks, usualStep } from './scale';

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

describe('ticks of time', () => {
  const utc = () => 0;
  const noon = Date.UTC(2026, 0, 1, 12);

  it('stand at round times, and as many as fit', () => {
    const short = timeTicks(noon + 3_000, noon + 100_000, 4, utc);
    expect(short.step).toBe(30_000);
    expect(short.ticks).toEqual([noon + 30_000, noon + 60_000, noon + 90_000]);
    for (const span of [1_500, 70_000, 420_000, 3_600_000, DAY, 7 * DAY, 30 * DAY, 900 * DAY]) {
      for (const wanted of [3, 5, 9]) {
        const { step, ticks } = timeTicks(noon + 777, noon + 777 + span, wanted, utc);
        expect(ticks.length).toBeLessThanOrEqual(wanted);
        expect(ticks.length).toBeGreaterThan(0);
        expect(ticks.every((tick) => tick % step === 0)).toBe(true);
      }
    }
  });

  it("follow the person's clock, also when it is changed in between", () => {
    const change = Date.UTC(2026, 9, 25, 1);
    const lisbon = (at: number) => (at < change ? 3_600_000 : 0);
    const { ticks } = timeTicks(Date.UTC(2026, 9, 24), Date.UTC(2026, 9, 27), 3, lisbon);
    expect(ticks.map((tick) => new Date(tick).toISOString().slice(0, 16))).toEqual([
      '2026-10-24T23:00',
      '2026-10-26T00:00',
      '2026-10-27T00:00',
    ]);
  });

  it('survive a single moment', () => {
    expect(timeTicks(noon, noon, 5, utc).ticks).toEqual([noon]);
  });
});

describe('lines', () => {
  it('break where a measurement is missing', () => {
    const scale = linear([0, 10], [0, 10]);
    const points = [0, 1, 2, 5, 6].map((x) => ({ x, y: 1 }));
    expect(usualStep(points)).toBe(1);
    expect(linePath(points, scale, scale, 1.5)).toBe('M0.0 1.0L1.0 1.0L2.0 1.0M5.0 1.0L6.0 1.0');
    expect(usualStep([])).toBe(0);
  });

  it('break where a window is missing, be it a minute or an hour', () => {
    const scale = linear([0, 10], [0, 10]);
    const at = (x: number, span: number) => ({ x, y: 1, span });
    const path = linePath([at(0, 4), at(4, 4), at(5, 1), at(6, 1), at(8, 1)], scale, scale);
    expect(path).toBe('M0.0 1.0L4.0 1.0L5.0 1.0L6.0 1.0M8.0 1.0');
    expect(linePath([at(0, 1), at(5, 4)], scale, scale)).toBe('M0.0 1.0L5.0 1.0');
  });

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
