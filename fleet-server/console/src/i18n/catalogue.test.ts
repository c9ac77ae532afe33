import { describe, expect, it } from 'vitest';
import { en } from './en';
import { makeFormat, splitSeconds } from './format';
import { preferredLocale } from './i18n';
import { ptBr } from './pt-br';
import { makeTranslate } from './translate';
import type { Message, MessageKey } from './types';

function texts(message: Message): string[] {
  return typeof message === 'string' ? [message] : [message.one, message.other];
}

function names(message: Message): string[] {
  const all = texts(message).flatMap((text) =>
    [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? ''),
  );
  return [...new Set(all)].toSorted();
}

describe('catalogues', () => {
  const keys = Object.keys(en) as MessageKey[];

  it('have the same parameters in each language', () => {
    for (const key of keys) expect(names(ptBr[key]), key).toEqual(names(en[key]));
  });

  it('leave nothing empty and nothing untrimmed', () => {
    for (const key of keys) {
      for (const text of [...texts(en[key]), ...texts(ptBr[key])]) {
        expect(text.trim(), key).toBe(text);
        expect(text, key).not.toBe('');
      }
    }
  });

  it('follow the browser until a person chooses', () => {
    expect(preferredLocale(null, ['pt-PT', 'en'])).toBe('pt-BR');
    expect(preferredLocale(null, ['de', 'fr'])).toBe('en');
    expect(preferredLocale('en', ['pt-BR'])).toBe('en');
    expect(preferredLocale('tlh', ['pt-BR'])).toBe('pt-BR');
  });
});

describe('translation', () => {
  it('chooses the plural by the language', () => {
    const t = makeTranslate(en, 'en');
    expect(t('rollout.devices', { n: 1 })).toBe('1 device');
    expect(t('rollout.devices', { n: 0 })).toBe('0 devices');
    expect(makeTranslate(ptBr, 'pt-BR')('rollout.devices', { n: 0 })).toBe('0 dispositivo');
  });

  it('never interprets what it inserts', () => {
    const t = makeTranslate(en, 'en');
    expect(t('user.menu', { name: '{name} <b>' })).toBe('Account of {name} <b>');
  });
});

describe('formats', () => {
  const t = makeTranslate(en, 'en');
  const format = makeFormat('en', t);

  it('carry units and never show what is not a number', () => {
    expect(format.bytes(0)).toBe('0\u202fB');
    expect(format.bytes(1536)).toBe('1.5\u202fKiB');
    expect(format.bytes(5 * 1024 ** 3)).toBe('5\u202fGiB');
    expect(format.microseconds(812)).toBe('812\u202fµs');
    expect(format.microseconds(1500)).toBe('1.5\u202fms');
    expect(format.percent(0.9744)).toBe('97.4\u202f%');
    expect(format.probability(1.2e-14)).toBe('< 0.0001');
    expect(format.probability(0.0412)).toBe('0.0412');
    for (const nothing of [null, undefined, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(format.bytes(nothing)).toBe('–');
      expect(format.percent(nothing)).toBe('–');
    }
  });

  it('say durations with two units at most', () => {
    expect(splitSeconds(90_061)).toEqual([
      [1, 'd'],
      [1, 'h'],
    ]);
    expect(splitSeconds(0)).toEqual([[0, 's']]);
    expect(format.seconds(3_600)).toBe('1\u202fh');
  });

  it('label an axis of time as exactly as its steps are', () => {
    const at = new Date(2026, 0, 5, 15, 21, 30).getTime();
    const plain = (text: string) => text.replaceAll('\u202f', ' ');
    expect(plain(format.timeTick(at, 30_000, false))).toBe('3:21:30 PM');
    expect(plain(format.timeTick(at, 60_000, false))).toBe('3:21 PM');
    expect(format.timeTick(at, 6 * 3_600_000, true)).toContain('Mon');
    expect(format.timeTick(at, 86_400_000, true)).toBe('Jan 5');
  });

  it('say times relative to now', () => {
    const now = Date.UTC(2026, 0, 1);
    expect(format.relative(now - 2_000, now)).toBe('just now');
    expect(format.relative(now - 120_000, now)).toBe('2 min. ago');
    expect(makeFormat('pt-BR', makeTranslate(ptBr, 'pt-BR')).relative(now - 86_400_000, now)).toBe('ontem');
  });
});
