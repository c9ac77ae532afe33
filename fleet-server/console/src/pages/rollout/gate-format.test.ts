import { describe, expect, it } from 'vitest';
import { en } from '../../i18n/en';
import { makeFormat } from '../../i18n/format';
import { ptBr } from '../../i18n/pt-br';
import { makeTranslate } from '../../i18n/translate';
import { formatDifference, formatLimit, formatRange } from './gate-format';

const english = makeTranslate(en, 'en');
const portuguese = makeTranslate(ptBr, 'pt-BR');
const inEnglish = makeFormat('en', english);
const inPortuguese = makeFormat('pt-BR', portuguese);

describe('gates', () => {
  it('name percentage points as each language does', () => {
    const limit = { worse_than_control: { by_at_most: 0.05 } };
    const gate = { metric: 'accuracy', limit, min_sample: 50 } as const;
    expect(formatLimit(english, inEnglish, gate)).toBe('at most 5.00 percentage points worse than control');
    expect(formatLimit(portuguese, inPortuguese, gate)).toBe(
      'no máximo 5,00 pontos percentuais pior que o controle',
    );
    expect(formatDifference(portuguese, inPortuguese, 'error_rate', -0.0123)).toBe(
      '-1,23 pontos percentuais',
    );
  });

  it('name the unit of a range once', () => {
    expect(formatRange(english, inEnglish, 'accuracy', -0.0048, 0.072)).toBe(
      '-0.48 to +7.20 percentage points',
    );
    expect(formatRange(english, inEnglish, 'latency_p95', 0.1, 0.2)).toBe('+10.0\u202f% to +20.0\u202f%');
  });
});
