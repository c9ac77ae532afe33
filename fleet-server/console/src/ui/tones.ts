/** Which tone a state has: in one place, so that a state looks the same on every page. */
import { en } from '../i18n/en';
import type { MessageKey, Translate } from '../i18n/types';
import type { Tone } from './badge';

const TONES: Readonly<Record<string, Tone>> = {
  // rollouts
  running: 'info',
  scheduled: 'info',
  awaiting_approval: 'warn',
  paused: 'warn',
  rolling_back: 'warn',
  completed: 'ok',
  denied: 'bad',
  aborted: 'bad',
  rolled_back: 'bad',
  // stages
  offering: 'info',
  soaking: 'info',
  gate_passed: 'ok',
  gate_failed: 'bad',
  // tasks
  offered: 'info',
  accepted: 'info',
  fetching: 'info',
  downloading: 'info',
  verified: 'info',
  staged: 'info',
  self_test: 'info',
  shadow: 'info',
  activating: 'info',
  probation: 'info',
  committed: 'ok',
  failed: 'bad',
  rejected: 'bad',
  timed_out: 'bad',
  unreachable: 'warn',
  // gates
  passed: 'ok',
  open: 'idle',
  // severities
  info: 'info',
  warning: 'warn',
  error: 'bad',
  critical: 'bad',
  // strategies of samples
  contradiction: 'bad',
  disagreement: 'warn',
  out_of_reference: 'warn',
  uncertainty: 'info',
};

export function toneOf(state: string): Tone {
  return TONES[state] ?? 'idle';
}

type Group =
  | 'phase'
  | 'rolloutState'
  | 'stageState'
  | 'stageIs'
  | 'cause'
  | 'metric'
  | 'onFailure'
  | 'severity'
  | 'role'
  | 'gate'
  | 'strategy'
  | 'pattern';

function isKey(key: string): key is MessageKey {
  return key in en;
}

/** The word for a state. A state that this console does not know yet is shown as the server names it. */
export function wordOf(t: Translate, group: Group, name: string): string {
  const key = `${group}.${name}`;
  return isKey(key) ? (t as (key: MessageKey) => string)(key) : name.replaceAll('_', ' ');
}
