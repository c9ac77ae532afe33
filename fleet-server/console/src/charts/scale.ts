/** Pure arithmetic of the charts: scales, ticks, paths, shares. */
export interface Scale {
  readonly domain: readonly [number, number];
  readonly at: (value: number) => number;
}

export function linear(domain: readonly [number, number], range: readonly [number, number]): Scale {
  const [low, high] = domain;
  const width = high - low || 1;
  return { domain, at: (value) => range[0] + ((value - low) / width) * (range[1] - range[0]) };
}

/** Round steps (1, 2, 5 times a power of ten) that cover `[low, high]`. */
export function niceTicks(low: number, high: number, wanted = 4): number[] {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const width = high - low || Math.abs(high) || 1;
  const rough = width / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, index) =>
    Number(((first + index) * step).toPrecision(12)),
  );
}

export interface Point {
  readonly x: number;
  /** Nothing was measured: the line breaks here. */
  readonly y: number | null;
  /** How much of `x` the value was measured over: what lies at most half of it farther away is no gap. */
  readonly span?: number;
}

function isGap(before: Point, point: Point, longestGap: number): boolean {
  const spans = [before.span, point.span].filter((span) => span !== undefined);
  const most = spans.length > 0 ? 1.5 * Math.max(...spans) : longestGap;
  return point.x - before.x > most;
}

/**
 * A line breaks where nothing was measured, and where more than `longestGap` of `x` lies between two points; where points
 * know their span, it is theirs that counts.
 */
export function linePath(points: readonly Point[], x: Scale, y: Scale, longestGap = Infinity): string {
  let path = '';
  let before: Point | null = null;
  for (const point of points) {
    if (point.y === null) {
      before = null;
      continue;
    }
    const isBroken = before === null || isGap(before, point, longestGap);
    path += `${isBroken ? 'M' : 'L'}${x.at(point.x).toFixed(1)} ${y.at(point.y).toFixed(1)}`;
    before = point;
  }
  return path;
}

/** The middle one of the distances between neighbours; 0 of fewer than two points. */
export function usualStep(points: readonly Point[]): number {
  const steps = points.slice(1).map((point, index) => point.x - (points[index]?.x ?? point.x));
  return steps.toSorted((a, b) => a - b)[Math.floor(steps.length / 2)] ?? 0;
}

/** Counts as shares of their sum; all zero when nothing was counted. */
export function shares(counts: readonly number[]): number[] {
  const sum = counts.reduce((total, count) => total + count, 0);
  return counts.map((count) => (sum === 0 ? 0 : count / sum));
}

/** Adjacent bins added up until at most `most` are left, for small drawings. */
export function coarsen(counts: readonly number[], most: number): number[] {
  const width = Math.ceil(counts.length / most);
  if (width <= 1) return [...counts];
  const coarse: number[] = [];
  for (let start = 0; start < counts.length; start += width) {
    coarse.push(counts.slice(start, start + width).reduce((total, count) => total + count, 0));
  }
  return coarse;
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
const TIME_STEPS: readonly number[] = [
  ...[1, 2, 5, 10, 15, 30].map((n) => n * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE),
  ...[1, 2, 3, 6, 12].map((n) => n * HOUR),
  ...[1, 2, 4, 7, 14, 28, 56, 112, 224, 448].map((n) => n * DAY),
];

export interface TimeTicks {
  /** Between two ticks, in milliseconds: says how exact their labels must be. */
  readonly step: number;
  readonly ticks: readonly number[];
}

function localOffset(at: number): number {
  return -new Date(at).getTimezoneOffset() * MINUTE;
}

/** Ticks at round local times, at most `wanted`: no two of them have the same label. */
export function timeTicks(low: number, high: number, wanted: number, offset = localOffset): TimeTicks {
  const most = Math.max(2, wanted);
  const start = low + offset(low);
  const width = Math.max(0, high - low);
  const countOf = (step: number) => Math.floor((start + width) / step) - Math.ceil(start / step) + 1;
  const step = TIME_STEPS.find((each) => countOf(each) <= most) ?? TIME_STEPS.at(-1) ?? DAY;
  const first = Math.ceil(start / step);
  const ticks = Array.from({ length: Math.max(0, countOf(step)) }, (_, index) => {
    const local = (first + index) * step;
    return local - offset(local - offset(low)); // Clocks may have been changed in between.
  });
  return { step, ticks: ticks.filter((tick) => tick >= low && tick <= high) };
}
