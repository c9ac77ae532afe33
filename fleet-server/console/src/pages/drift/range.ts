/** How far back the page looks. */
export const RANGES = ['1h', '24h', '7d', '30d', '90d'] as const;
export type Range = (typeof RANGES)[number];

const SECONDS: Readonly<Record<Range, number>> = {
  '1h': 3_600,
  '24h': 86_400,
  '7d': 604_800,
  '30d': 2_592_000,
  '90d': 7_776_000,
};

export function rangeOf(text: string): Range {
  return RANGES.find((range) => range === text) ?? '24h';
}

/** Rounded to the minute, so that the same question has the same address and cache key for a while. */
export function fromOf(range: Range, now: number): string {
  const minute = 60_000;
  return new Date(Math.floor(now / minute) * minute - SECONDS[range] * 1_000).toISOString();
}
