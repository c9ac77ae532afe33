/** Filters live in the address, so that every view can be linked, reloaded and gone back to. */
import { useCallback } from 'react';
import { useNavigate, useSearchParams } from 'react-router';
import type { Sort } from './table';

type Changes = Readonly<Record<string, string | null>>;

interface UrlState {
  readonly get: (name: string) => string;
  /** Sets or removes parameters; any change of a filter goes back to the first page. */
  readonly set: (changes: Changes) => void;
  readonly goTo: (path: string) => void;
}

export function useUrlState(): UrlState {
  const [params, setParams] = useSearchParams();
  const set = useCallback(
    (changes: Changes) =>
      setParams(
        (before) => {
          const after = new URLSearchParams(before);
          if (!('cursor' in changes)) after.delete('cursor');
          for (const [name, value] of Object.entries(changes)) {
            if (value === null || value === '') after.delete(name);
            else after.set(name, value);
          }
          return after;
        },
        { replace: !('cursor' in changes), preventScrollReset: true },
      ),
    [setParams],
  );
  const navigate = useNavigate();
  return {
    get: (name) => params.get(name) ?? '',
    set,
    goTo: (path) => void navigate(path),
  };
}

/** `?sort=name` or `?sort=-name`. */
export function parseSort(text: string): Sort | undefined {
  if (text === '') return undefined;
  return text.startsWith('-')
    ? { column: text.slice(1), isDescending: true }
    : { column: text, isDescending: false };
}

export function formatSort(sort: Sort): string {
  return sort.isDescending ? `-${sort.column}` : sort.column;
}
