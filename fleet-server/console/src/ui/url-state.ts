/** Filters live in the address, so that every view can be linked, reloaded and gone back to. */
import { useCallback } from 'react';
import { useNavigate, useSearchParams } from 'react-router';
import type { Translate } from '../i18n/types';
import type { Sort } from './table';

type Changes = Readonly<Record<string, string | null>>;

export interface UrlState {
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

/** Most rows of one page of the server. */
const MOST_ROWS = 500;

interface Listed {
  readonly items: readonly unknown[];
  readonly total: number;
}

interface Sorting {
  readonly sort: Sort | undefined;
  readonly onSort: ((sort: Sort) => void) | undefined;
  /** Why there is no sorting. */
  readonly isTooLong: boolean;
}

/** Rows of one page: all that there can be once they are to be sorted, since the server sorts by name only. */
export function pageLimit(sort: string): { readonly limit?: number } {
  return sort === '' ? {} : { limit: MOST_ROWS };
}

/** Sorting over all rows or none: the least of one page among many would be taken for the least of all. */
export function sortingOf(url: UrlState, list: Listed | undefined): Sorting {
  const isTooLong = list !== undefined && list.total > MOST_ROWS;
  const isWhole = list !== undefined && list.items.length === list.total;
  return {
    sort: isWhole ? parseSort(url.get('sort')) : undefined,
    onSort: list && !isTooLong ? (sort) => url.set({ sort: formatSort(sort) }) : undefined,
    isTooLong,
  };
}

/** For the pager, where the list has no sorting. */
export function unsortedNote(t: Translate, { isTooLong }: Sorting): string | undefined {
  return isTooLong ? t('pager.unsorted', { n: MOST_ROWS }) : undefined;
}
