/** Relative time with the absolute one in the tooltip. All of them tick on one clock. */
import { useSyncExternalStore } from 'react';
import { useI18n } from '../i18n/i18n';
import { NONE } from '../i18n/format';

const TICK_MS = 5_000;
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;
const listeners = new Set<() => void>();

function subscribe(notify: () => void): () => void {
  if (listeners.size === 0) now = Date.now();
  listeners.add(notify);
  timer ??= setInterval(() => {
    now = Date.now();
    listeners.forEach((each) => each());
  }, TICK_MS);
  return () => {
    listeners.delete(notify);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}

interface TimeProps {
  /** RFC 3339, or Unix milliseconds; nothing shows a dash. */
  readonly at: string | number | null | undefined;
}

export function RelativeTime({ at }: TimeProps) {
  const { format } = useI18n();
  const clock = useNow();
  if (at === null || at === undefined) return <span className="muted">{NONE}</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={format.dateTime(at)} className="nowrap">
      {format.relative(at, clock)}
    </time>
  );
}

export function AbsoluteTime({ at }: TimeProps) {
  const { format } = useI18n();
  if (at === null || at === undefined) return <span className="muted">{NONE}</span>;
  return (
    <time dateTime={new Date(at).toISOString()} className="num nowrap">
      {format.dateTime(at)}
    </time>
  );
}
