/** Pure: catalogue + key + parameters -> text. */
import type { Catalogue, Locale, Message, Translate, Value } from './types';

function pick(message: Message, params: Readonly<Record<string, Value>>, rules: Intl.PluralRules): string {
  if (typeof message === 'string') return message;
  return rules.select(Number(params.n)) === 'one' ? message.one : message.other;
}

export function makeTranslate(catalogue: Catalogue, locale: Locale): Translate {
  const rules = new Intl.PluralRules(locale);
  const numbers = new Intl.NumberFormat(locale);
  return (key, ...args) => {
    const params: Readonly<Record<string, Value>> = args[0] ?? {};
    return pick(catalogue[key], params, rules).replace(/\{(\w+)\}/g, (whole, name: string) => {
      const value = params[name];
      if (value === undefined) return whole;
      return typeof value === 'number' ? numbers.format(value) : value;
    });
  };
}
