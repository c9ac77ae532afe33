import { describe, expect, it } from 'vitest';
import { en } from '../../i18n/en';
import { makeFormat } from '../../i18n/format';
import { makeTranslate } from '../../i18n/translate';
import { answerText, downloadCommand } from './samples';

const format = makeFormat('en', makeTranslate(en, 'en'));

describe('samples', () => {
  it('say what the model said: a class with its probability, or a number', () => {
    expect(answerText(format, { label: '3', confidence: 0.9712, value: null })).toBe('3 (97.1\u202f%)');
    expect(answerText(format, { label: '3', confidence: null, value: null })).toBe('3');
    expect(answerText(format, { label: null, confidence: null, value: 21.456 })).toBe('21.46');
    expect(answerText(format, { label: null, confidence: null, value: null })).toBe('–');
  });

  it('are fetched by the command line, only those that are looked at', () => {
    expect(downloadCommand('digits', '1.1.0', '')).toBe(
      'flotilla samples download --model digits --version 1.1.0 --out ./samples',
    );
    expect(downloadCommand('digits', '1.1.0', 'random')).toContain('--strategy random --out');
  });
});
