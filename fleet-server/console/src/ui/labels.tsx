/** Labels: shown as tags, edited as lines of `key=value`. */
import { Tag } from './badge';

export type Labels = Readonly<Record<string, string>>;

export function LabelTags({ labels }: { readonly labels: Labels }) {
  const entries = Object.entries(labels);
  if (entries.length === 0) return <span className="muted">–</span>;
  return (
    <span className="row">
      {entries.map(([key, value]) => (
        <Tag key={key}>
          {key}={value}
        </Tag>
      ))}
    </span>
  );
}

export function formatLabels(labels: Labels): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join('\n');
}

/** The labels, or the number (from 1) of the first line that is none. */
export function parseLabels(text: string): { labels: Labels } | { badLine: number } {
  const labels: Record<string, string> = {};
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const at = line.indexOf('=');
    if (at < 1) return { badLine: index + 1 };
    labels[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return { labels };
}

/** What leads from one set to another; labels that somebody else has set meanwhile stay. */
export function labelChanges(before: Labels, after: Labels): Record<string, string | null> {
  const removed = Object.keys(before).filter((key) => !(key in after));
  const set = Object.entries(after).filter(([key, value]) => before[key] !== value);
  return Object.fromEntries([...removed.map((key) => [key, null] as const), ...set]);
}
