/** Language of the console: English is built in, other catalogues are loaded when chosen. */
import { createContext, use, useCallback, useEffect, useMemo, useState, type ReactNode } from 'react';
import { I18nProvider as AriaI18nProvider } from 'react-aria-components';
import { readSetting, writeSetting } from '../theme/settings';
import { en } from './en';
import { makeFormat, type Format } from './format';
import { makeTranslate } from './translate';
import { LOCALES, type Catalogue, type Locale, type Translate } from './types';

interface I18n {
  readonly locale: Locale;
  readonly t: Translate;
  readonly format: Format;
  readonly chooseLocale: (locale: Locale) => void;
}

const Context = createContext<I18n | null>(null);

async function load(locale: Locale): Promise<Catalogue> {
  return locale === 'en' ? en : (await import('./pt-br')).ptBr;
}

export function preferredLocale(stored: string | null, languages: readonly string[]): Locale {
  const chosen = LOCALES.find((locale) => locale === stored);
  if (chosen) return chosen;
  for (const language of languages) {
    if (language.toLowerCase().startsWith('pt')) return 'pt-BR';
    if (language.toLowerCase().startsWith('en')) return 'en';
  }
  return 'en';
}

export function I18nProvider({ children }: { readonly children: ReactNode }) {
  const [wanted, setWanted] = useState(() => preferredLocale(readSetting('locale'), navigator.languages));
  const [loaded, setLoaded] = useState<{ locale: Locale; catalogue: Catalogue } | null>(
    wanted === 'en' ? { locale: 'en', catalogue: en } : null,
  );

  useEffect(() => {
    let isCurrent = true;
    const show = (locale: Locale, catalogue: Catalogue) => {
      if (!isCurrent) return;
      document.documentElement.lang = locale;
      setLoaded({ locale, catalogue });
    };
    load(wanted).then(
      (catalogue) => show(wanted, catalogue),
      () => show('en', en), // The catalogue can't be fetched: English is at hand.
    );
    return () => {
      isCurrent = false;
    };
  }, [wanted]);

  const chooseLocale = useCallback((locale: Locale) => {
    writeSetting('locale', locale);
    setWanted(locale);
  }, []);

  const value = useMemo<I18n | null>(() => {
    if (!loaded) return null;
    const t = makeTranslate(loaded.catalogue, loaded.locale);
    return { locale: loaded.locale, t, format: makeFormat(loaded.locale, t), chooseLocale };
  }, [loaded, chooseLocale]);

  if (!value) return null;
  return (
    <AriaI18nProvider locale={value.locale}>
      <Context value={value}>{children}</Context>
    </AriaI18nProvider>
  );
}

export function useI18n(): I18n {
  const value = use(Context);
  if (!value) throw new Error('useI18n needs an I18nProvider above it');
  return value;
}
