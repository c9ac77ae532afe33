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
}

export function linePath(points: readonly Point[], x: Scale, y: Scale): string {
  let path = '';
  let isBroken = true;
  for (const point of points) {
    if (point.y === null) {
      isBroken = true;
      continue;
    }
    path += `${isBroken ? 'M' : 'L'}${x.at(point.x).toFixed(1)} ${y.at(point.y).toFixed(1)}`;
    isBroken = false;
  }
  return path;
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

/** Ticks of time that fit: at most `wanted`, evenly spread. */
export function timeTicks(low: number, high: number, wanted: number): number[] {
  if (high <= low) return [low];
  const count = Math.max(2, wanted);
  return Array.from({ length: count }, (_, index) => low + ((high - low) * index) / (count - 1));
}
