/** Task phases as parts of a bar: success first, then what moves, what waits, what went wrong. */
import type { Part } from '../../charts/stack-bar';
import type { Translate } from '../../i18n/types';
import { toneOf, wordOf } from '../../ui/tones';

const ORDER = [
  'committed',
  'probation',
  'activating',
  'shadow',
  'self_test',
  'staged',
  'verified',
  'downloading',
  'accepted',
  'offered',
  'queued',
  'skipped',
  'canceled',
  'unreachable',
  'timed_out',
  'rejected',
  'failed',
  'rolled_back',
] as const;

export type PhaseCounts = Readonly<Record<string, number>>;

export function phaseParts(t: Translate, counts: PhaseCounts): readonly Part[] {
  const known: readonly string[] = ORDER;
  const names = [...ORDER, ...Object.keys(counts).filter((name) => !known.includes(name))];
  return names
    .filter((name) => (counts[name] ?? 0) > 0)
    .map((name) => ({
      id: name,
      label: wordOf(t, 'phase', name),
      count: counts[name] ?? 0,
      tone: toneOf(name),
    }));
}
