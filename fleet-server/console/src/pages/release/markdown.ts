/** The little Markdown that model cards need: headings, lists, tables, code, paragraphs. Text only, so that nothing in it can run. */
export type Block =
  | { readonly kind: 'heading'; readonly level: number; readonly text: string }
  | { readonly kind: 'paragraph'; readonly text: string }
  | { readonly kind: 'list'; readonly items: readonly string[] }
  | { readonly kind: 'code'; readonly text: string }
  | {
      readonly kind: 'table';
      readonly header: readonly string[];
      readonly rows: readonly (readonly string[])[];
    };

function plain(text: string): string {
  return text
    .replace(/\*\*([^*]+)\*\*/g, '$1')
    .replace(/`([^`]+)`/g, '$1')
    .replace(/\[([^\]]+)\]\(([^)]+)\)/g, '$1 ($2)')
    .trim();
}

function cells(line: string): string[] {
  return line
    .trim()
    .replace(/^\||\|$/g, '')
    .split('|')
    .map(plain);
}

const isTableRule = (line: string | undefined) =>
  line !== undefined && /^\s*\|?[\s:|-]*-[\s:|-]*$/.test(line) && line.includes('|');

/** Lines from `start` while they belong together, and where the next block begins. */
function run(
  lines: readonly string[],
  start: number,
  belongs: (line: string) => boolean,
): [string[], number] {
  let end = start;
  while (end < lines.length && belongs(lines[end] ?? '')) end += 1;
  return [lines.slice(start, end), end];
}

const isItem = (line: string) => /^\s*[-*+] /.test(line);
/** One text for each item: a line that is indented under it goes on with it. */
function joined(lines: readonly string[]): string[] {
  const items: string[] = [];
  for (const line of lines) {
    const previous = items.pop();
    if (previous !== undefined && !isItem(line)) items.push(`${previous} ${line.trim()}`);
    else items.push(...(previous === undefined ? [] : [previous]), line.replace(/^\s*[-*+] /, ''));
  }
  return items;
}

const isSpecial = (line: string) =>
  /^#{1,6} /.test(line) || isItem(line) || line.startsWith('```') || line.trim() === '';

export function parseCard(text: string): Block[] {
  const lines = text.replace(/\r/g, '').split('\n');
  const blocks: Block[] = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at] ?? '';
    const heading = /^(#{1,6}) +(.*)$/.exec(line);
    if (line.trim() === '') {
      at += 1;
    } else if (heading) {
      blocks.push({ kind: 'heading', level: heading[1]?.length ?? 1, text: plain(heading[2] ?? '') });
      at += 1;
    } else if (line.startsWith('```')) {
      const [code, end] = run(lines, at + 1, (each) => !each.startsWith('```'));
      blocks.push({ kind: 'code', text: code.join('\n') });
      at = end + 1;
    } else if (isItem(line)) {
      const [items, end] = run(lines, at, (each) => isItem(each) || /^\s{2,}\S/.test(each));
      blocks.push({ kind: 'list', items: joined(items).map((item) => plain(item)) });
      at = end;
    } else if (isTableRule(lines[at + 1])) {
      const [rows, end] = run(lines, at + 2, (each) => each.includes('|'));
      blocks.push({ kind: 'table', header: cells(line), rows: rows.map(cells) });
      at = end;
    } else {
      const [words, end] = run(lines, at + 1, (each) => !isSpecial(each));
      blocks.push({ kind: 'paragraph', text: plain([line, ...words].join(' ')) });
      at = end;
    }
  }
  return blocks;
}
