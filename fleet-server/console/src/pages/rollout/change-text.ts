/** What a journal entry changed, in words: from its data, or as the server says it where the data is of a newer kind. */
import type { JournalEntry } from '../../api/rollouts';
import type { Format } from '../../i18n/format';
import type { Translate } from '../../i18n/types';
import { wordOf } from '../../ui/tones';

interface Status {
  readonly status: string;
  readonly stage?: number;
}

interface Phase {
  readonly phase: string;
}

/** As `rollout::Change` is written to JSON. */
type Change =
  | { readonly change: 'status'; readonly from: Status; readonly to: Status }
  | { readonly change: 'stage'; readonly stage: number; readonly from: string; readonly to: string }
  | { readonly change: 'joined'; readonly devices: readonly string[] }
  | { readonly change: 'filled'; readonly stage: number | null; readonly devices: readonly string[] }
  | { readonly change: 'task'; readonly device: string; readonly from: Phase; readonly to: Phase }
  | { readonly change: 'waiting'; readonly device: string; readonly until: number | null }
  | { readonly change: 'restore'; readonly device: string }
  | { readonly change: 'late'; readonly device: string; readonly reported: Phase }
  | { readonly change: 'measured'; readonly stage: number; readonly evidence: readonly unknown[] }
  | { readonly change: 'budget_accepted'; readonly failures: number; readonly unreachable: number };

type Entry = Pick<JournalEntry, 'change' | 'message'>;

export function changeText(t: Translate, format: Format, entry: Entry): string {
  // The server stores only changes that the rollout crate has written.
  const change = entry.change as unknown as Change;
  const phase = (of: Phase) => wordOf(t, 'phase', of.phase);
  switch (change.change) {
    case 'status':
      return statusText(t, change.from, change.to);
    case 'stage':
      return t('journal.stage', { stage: change.stage + 1, state: wordOf(t, 'stageIs', change.to) });
    case 'joined':
      return t('journal.joined', { n: change.devices.length });
    case 'filled': {
      const n = change.devices.length;
      return change.stage === null
        ? t('journal.inNone', { n })
        : t('journal.filled', { stage: change.stage + 1, n });
    }
    case 'task':
      return t('journal.task', { device: change.device, from: phase(change.from), to: phase(change.to) });
    case 'waiting':
      return change.until === null
        ? t('journal.waitsNoLonger', { device: change.device })
        : t('journal.waits', { device: change.device, until: format.dateTime(change.until) });
    case 'restore':
      return t('journal.restore', { device: change.device });
    case 'late':
      return t('journal.late', { device: change.device, phase: phase(change.reported) });
    case 'measured': {
      const at = { stage: change.stage + 1 };
      const n = change.evidence.length;
      return n === 0 ? t('journal.unmeasured', at) : t('journal.measured', { ...at, n });
    }
    case 'budget_accepted':
      return t('journal.accepted', { failures: change.failures, unreachable: change.unreachable });
    default:
      return entry.message;
  }
}

/** Where the state stays the same, its stage changed. */
function statusText(t: Translate, from: Status, to: Status): string {
  if (from.status === to.status && to.stage !== undefined) {
    return t('journal.nextStage', { stage: to.stage + 1 });
  }
  const state = ({ status }: Status) => wordOf(t, 'rolloutState', status);
  return t('journal.change', { from: state(from), to: state(to) });
}
