import { describe, expect, it } from 'vitest';
import { parseCard } from './markdown';

describe('model cards', () => {
  it('show headings, lists, tables and code', () => {
    const card =
      '# Digits\n\nA **small** net\nfor `digits`.\n\n- one\n- two\n\n| variant | accuracy |\n|---|---:|\n| int8 | 97.2 % |\n\n```\ncode\n```\n';
    expect(parseCard(card)).toEqual([
      { kind: 'heading', level: 1, text: 'Digits' },
      { kind: 'paragraph', text: 'A small net for digits.' },
      { kind: 'list', items: ['one', 'two'] },
      { kind: 'table', header: ['variant', 'accuracy'], rows: [['int8', '97.2 %']] },
      { kind: 'code', text: 'code' },
    ]);
  });

  it('join the lines of an item', () => {
    expect(parseCard('- one\n  goes on\n- two')).toEqual([{ kind: 'list', items: ['one goes on', 'two'] }]);
  });

  it('end on every input, and keep markup as text', () => {
    for (const text of ['', '```', '|', '#', '- ', '<script>alert(1)</script>', '|-|\n|-|']) {
      expect(parseCard(text).length).toBeLessThan(4);
    }
    expect(parseCard('<b>x</b>')).toEqual([{ kind: 'paragraph', text: '<b>x</b>' }]);
  });
});
