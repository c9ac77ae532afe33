import { describe, expect, it } from 'vitest';
import { formatSort, pageLimit, parseSort, sortingOf, type UrlState } from './url-state';

const url: UrlState = { get: () => '-seen', set: () => undefined, goTo: () => undefined };
const list = (shown: number, total: number) => ({ items: Array.from({ length: shown }), total });

describe('sorting', () => {
  it('is of all rows or of none', () => {
    expect(sortingOf(url, list(6, 6)).sort).toEqual({ column: 'seen', isDescending: true });
    expect(sortingOf(url, list(100, 146)).sort).toBeUndefined();
    expect(sortingOf(url, undefined).sort).toBeUndefined();
  });

  it('is offered as long as one page can hold all rows, and then asks for them', () => {
    expect(sortingOf(url, list(100, 146)).onSort).toBeDefined();
    expect(pageLimit('-seen')).toEqual({ limit: 500 });
    expect(pageLimit('')).toEqual({});
    const long = sortingOf(url, list(500, 5_000));
    expect(long.onSort).toBeUndefined();
    expect(long.isTooLong).toBe(true);
  });

  it('goes through the address and back', () => {
    for (const text of ['seen', '-seen'])
      expect(formatSort(parseSort(text) ?? { column: '', isDescending: false })).toBe(text);
    expect(parseSort('')).toBeUndefined();
  });
});
