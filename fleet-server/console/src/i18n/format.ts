/** Numbers with their units, in the person's language. A missing value is an en dash, never `null` or `NaN`. */
import type { Locale, Translate } from './types';

export const NONE = '–';
const SMALLEST_P = 0.0001;
type Maybe = number | null | undefined;

export interface Format {
  readonly number: (value: Maybe, digits?: number) => string;
  /** At most `digits` significant digits: for scores. */
  readonly score: (value: Maybe, digits?: number) => string;
  /** A p-value: below what people compare, only that it is below. */
  readonly probability: (value: Maybe) => string;
  /** `value` is a share from 0 to 1. */
  readonly percent: (value: Maybe, digits?: number) => string;
  /** `value` is a difference of shares; percentage points without their unit. */
  readonly points: (value: Maybe) => string;
  readonly bytes: (value: Maybe) => string;
  readonly microseconds: (value: Maybe) => string;
  readonly seconds: (value: Maybe) => string;
  readonly dateTime: (value: string | number | null | undefined) => string;
  /** A label on an axis of time whose ticks are `stepMs` apart. */
  readonly timeTick: (value: number, stepMs: number, isManyDays: boolean) => string;
  readonly relative: (value: string | number, now: number) => string;
}

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;
const SPANS: readonly (readonly [Intl.RelativeTimeFormatUnit, number])[] = [
  ['year', 31_536_000],
  ['month', 2_592_000],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
];

function isNumber(value: Maybe): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

export function splitSeconds(total: number): readonly (readonly [number, 'd' | 'h' | 'min' | 's'])[] {
  const whole = Math.round(total);
  const parts = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor((whole % 86_400) / 3_600), 'h'],
    [Math.floor((whole % 3_600) / 60), 'min'],
    [whole % 60, 's'],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return [[0, 's']];
  return parts.slice(first, first + 2).filter(([count]) => count > 0);
}

export function makeFormat(locale: Locale, t: Translate): Format {
  const fixed = (value: number, digits: number, minimum = 0) =>
    new Intl.NumberFormat(locale, { maximumFractionDigits: digits, minimumFractionDigits: minimum }).format(
      value,
    );
  const dateTime = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'medium' });
  const clock = { hour: 'numeric', minute: '2-digit' } as const;
  const seconds = new Intl.DateTimeFormat(locale, { ...clock, second: '2-digit' });
  const minutes = new Intl.DateTimeFormat(locale, clock);
  const hours = new Intl.DateTimeFormat(locale, { ...clock, weekday: 'short' });
  const days = new Intl.DateTimeFormat(locale, { month: 'short', day: 'numeric' });
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: 'auto', style: 'short' });

  return {
    number: (value, digits = 0) => (isNumber(value) ? fixed(value, digits) : NONE),
    score: (value, digits = 3) =>
      isNumber(value)
        ? new Intl.NumberFormat(locale, { maximumSignificantDigits: digits }).format(value)
        : NONE,
    probability: (value) => {
      if (!isNumber(value)) return NONE;
      return value < SMALLEST_P ? `< ${fixed(SMALLEST_P, 4)}` : fixed(value, 4);
    },
    percent: (value, digits = 1) => (isNumber(value) ? `${fixed(value * 100, digits, digits)}\u202f%` : NONE),
    points: (value) => (isNumber(value) ? fixed(value * 100, 2, 2) : NONE),
    bytes: (value) => {
      if (!isNumber(value)) return NONE;
      const rank = value < 1 ? 0 : Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log2(value) / 10));
      const scaled = value / 1024 ** rank;
      return `${fixed(scaled, rank === 0 || scaled >= 100 ? 0 : 1)}\u202f${BYTE_UNITS[rank] ?? 'B'}`;
    },
    microseconds: (value) => {
      if (!isNumber(value)) return NONE;
      if (value < 1_000) return `${fixed(value, value < 10 ? 1 : 0)}\u202fµs`;
      if (value < 1_000_000) return `${fixed(value / 1_000, value < 100_000 ? 1 : 0)}\u202fms`;
      return `${fixed(value / 1_000_000, 2)}\u202fs`;
    },
    seconds: (value) =>
      isNumber(value)
        ? splitSeconds(value)
            .map(([count, unit]) => `${fixed(count, 0)}\u202f${unit}`)
            .join(' ')
        : NONE,
    dateTime: (value) => (value === null || value === undefined ? NONE : dateTime.format(new Date(value))),
    timeTick: (value, stepMs, isManyDays) => {
      if (stepMs < 60_000) return seconds.format(value);
      if (stepMs >= 86_400_000) return days.format(value);
      return (isManyDays ? hours : minutes).format(value);
    },
    relative: (value, now) => {
      const elapsed = (new Date(value).getTime() - now) / 1_000;
      const span = SPANS.find(([, length]) => Math.abs(elapsed) >= length);
      if (!span)
        return Math.abs(elapsed) < 10 ? t('time.now') : relative.format(Math.round(elapsed), 'second');
      return relative.format(Math.round(elapsed / span[1]), span[0]);
    },
  };
}
