/**
 * What the server writes for people, in the person's language. English passes untouched; so does whatever fits no
 * sentence of `en-server.ts`: a newer server's words, a person's reason, a device's detail.
 */
import { useMemo } from 'react';
import { wordOf } from '../ui/tones';
import { en } from './en';
import { enServer } from './en-server';
import type { Format } from './format';
import { useI18n } from './i18n';
import type { Locale, MessageKey, ParamsOf, Translate, Value } from './types';

type ServerKey = keyof typeof enServer;
type Param = ParamsOf<ServerKey>;

export interface ServerText {
  /** A whole sentence, or several that the server joined. */
  readonly sentence: (text: string) => string;
  /** A stage's name: the server's defaults are translated, a person's own name stays. */
  readonly stage: (name: string) => string;
  /** `accuracy`, `install_failures(download)`, `latency_p95[hour=3]`. */
  readonly gate: (label: string) => string;
  /** Who did it: `engine`, `user ana`, `device cam-1`. */
  readonly actor: (text: string) => string;
}

interface Reader {
  /** What the parameter may look like, as a regular expression. */
  readonly shape: string;
  readonly read: (text: string, in_: Language) => Value;
}

interface Language {
  readonly rules: readonly Rule[];
  readonly t: Translate;
  readonly format: Format;
  readonly server: ServerText;
}

/** Longer texts are no sentences of the server; it cuts people's reasons at 500 characters. */
const MOST_CHARACTERS = 4000;

const names = (prefix: string): readonly string[] =>
  Object.keys(en)
    .filter((key) => key.startsWith(`${prefix}.`))
    .map((key) => key.slice(prefix.length + 1));
const oneOf = (words: readonly string[]): string => words.join('|');

const STAGE_STATES: Readonly<Record<string, MessageKey>> = {
  'not begun': 'stageIs.pending',
  'being offered the release': 'stageIs.offering',
  soaking: 'stageIs.soaking',
  passed: 'stageIs.gate_passed',
  failed: 'stageIs.gate_failed',
};

const VERBS: Readonly<Record<string, MessageKey>> = {
  approved: 'rollout.approve',
  denied: 'rollout.deny',
  paused: 'rollout.pause',
  resumed: 'rollout.resume',
  ended: 'rollout.abort',
  'rolled back': 'rollout.rollback',
};

const THINGS: Readonly<Record<string, MessageKey>> = {
  device: 'device.name',
  model: 'devices.model',
  project: 'nav.project',
  release: 'rollouts.release',
  rollout: 'rollouts.rollout',
  user: 'users.user',
  token: 'enrol.text',
};

const GATE = `(?:${oneOf(names('metric'))})(?:\\([a-z]+\\))?(?:\\[[^\\]]+\\])?`;

const asIs = (text: string): Value => text;
const word: Reader = { shape: '\\S+', read: asIs };
const count: Reader = { shape: '\\d+', read: Number };
const number: Reader = {
  shape: '-?[\\d.]+',
  read: (text, { format }) => format.number(Number(text), 6),
};

function keyed(keys: Readonly<Record<string, MessageKey>>): Reader {
  const read: Reader['read'] = (text, { t }) => {
    const key = keys[text];
    return key ? inside(plain(t, key)) : text;
  };
  return { shape: oneOf(Object.keys(keys)), read };
}

/** What may stand for a parameter, by its name: a name that is not here does not compile. */
const READERS: Readonly<Record<Param, Reader>> = {
  device: word,
  model: word,
  version: word,
  rollout: word,
  n: count,
  total: count,
  current: count,
  concluded: count,
  least: count,
  attempt: count,
  controlN: count,
  value: number,
  control: number,
  bound: number,
  by: number,
  low: number,
  high: number,
  limit: number,
  amount: {
    shape: '\\d+(?:\\.\\d+)?%?',
    read: (text, { format }) => {
      const shown = format.number(Number.parseFloat(text), 3);
      return text.endsWith('%') ? `${shown}\u202f%` : shown;
    },
  },
  phase: { shape: oneOf(names('phase')), read: (text, { t }) => inside(wordOf(t, 'phase', text)) },
  cause: { shape: oneOf(names('cause')), read: (text, { t }) => inside(wordOf(t, 'cause', text)) },
  state: {
    shape: oneOf(names('rolloutState')),
    read: (text, { t }) => inside(wordOf(t, 'rolloutState', text)),
  },
  stageState: keyed(STAGE_STATES),
  verb: keyed(VERBS),
  what: keyed(THINGS),
  gate: { shape: GATE, read: (text, { server }) => inside(server.gate(text)) },
  stage: {
    shape: '.+?',
    read: (text, { server }) => {
      const shown = server.stage(text);
      return shown === text ? text : inside(shown);
    },
  },
  why: { shape: '.+?', read: (text, { server }) => server.sentence(text) },
  words: { shape: '.+', read: asIs },
};

interface Rule {
  readonly key: ServerKey;
  readonly pattern: RegExp;
}

/** In the catalogue's order; anchored at both ends. */
const RULES: readonly Rule[] = (Object.keys(enServer) as ServerKey[]).map((key) => ({
  key,
  pattern: patternOf(enServer[key]),
}));

/** English needs no translation, only the console's word for each phase. */
const PHASE_RULES = RULES.filter(({ key }) => enServer[key].includes('{phase}'));

function patternOf(sentence: string): RegExp {
  const source = sentence
    .split(/\{(\w+)\}/)
    .map((part, i) => (i % 2 === 0 ? escape(part) : `(?<${part}>${READERS[part as Param].shape})`));
  return new RegExp(`^${source.join('')}$`, 's');
}

function escape(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}

/** A catalogue's word in the middle of a sentence. */
function inside(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function plain(t: Translate, key: MessageKey, params: Readonly<Record<string, Value>> = {}): string {
  return (t as (key: MessageKey, params: Readonly<Record<string, Value>>) => string)(key, params);
}

function oneSentence(text: string, language: Language): string | null {
  for (const { key, pattern } of language.rules) {
    const found = pattern.exec(text);
    if (!found) continue;
    const groups = Object.entries(found.groups ?? {});
    const params = groups.map(([name, value]) => [name, READERS[name as Param].read(value, language)]);
    return plain(language.t, key, Object.fromEntries(params) as Record<string, Value>);
  }
  return null;
}

/** How the server joins sentences: what gates say with semicolons, what devices do with commas. */
const JOINTS: readonly (readonly [RegExp, string])[] = [
  [new RegExp(`; (?=${GATE}: )`), '; '],
  [/; (?=\d+ of \d+: )/, '; '],
  [/, /, ', '],
];

function anySentence(text: string, language: Language): string {
  if (text.length > MOST_CHARACTERS) return text;
  const isJoined = JOINTS[0]?.[0].test(text) ?? false;
  const whole = isJoined ? null : oneSentence(text, language);
  if (whole !== null) return whole;
  for (const [joint, between] of JOINTS) {
    const parts = text.split(joint);
    const known = parts.length > 1 ? parts.map((part) => oneSentence(part, language)) : [];
    if (known.length > 0 && known.every((part) => part !== null)) return known.join(between);
  }
  return text;
}

function stageName(t: Translate, name: string): string {
  const numbered = /^stage (\d+)$/.exec(name);
  if (numbered) return t('rollout.stage', { n: Number(numbered[1]) });
  return name === 'control group' ? t('gate.control') : name;
}

/** The kind of failure stands in a label without its underscores. */
function gateName(t: Translate, label: string): string {
  const parts = /^([a-z_0-9]+)(?:\(([a-z]+)\))?(?:\[([^\]]+)\])?$/.exec(label);
  if (!parts) return label;
  const [, metric = '', kind, slice] = parts;
  const cause = names('cause').find((each) => each.replaceAll('_', '') === kind);
  const about = [cause === undefined ? kind : inside(wordOf(t, 'cause', cause)), slice];
  const shown = about.filter((each) => each !== undefined);
  return wordOf(t, 'metric', metric) + (shown.length > 0 ? ` (${shown.join(', ')})` : '');
}

function actorName(t: Translate, text: string): string {
  if (text === 'engine') return t('actor.engine');
  const [, kind, name = ''] = /^(user|device) (.+)$/s.exec(text) ?? [];
  if (kind === 'user') return t('actor.user', { name });
  return kind === 'device' ? t('actor.device', { name }) : text;
}

export function makeServerText(locale: Locale, t: Translate, format: Format): ServerText {
  const rules = locale === 'en' ? PHASE_RULES : RULES;
  const server: ServerText = {
    sentence: (text) => anySentence(text, { rules, t, format, server }),
    stage: (name) => stageName(t, name),
    gate: (label) => gateName(t, label),
    actor: (text) => actorName(t, text),
  };
  return server;
}

export function useServerText(): ServerText {
  const { locale, t, format } = useI18n();
  return useMemo(() => makeServerText(locale, t, format), [locale, t, format]);
}
