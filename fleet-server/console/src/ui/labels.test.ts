import { describe, expect, it } from 'vitest';
import { formatLabels, labelChanges, parseLabels } from './labels';

describe('labels', () => {
  it('round-trip through their lines', () => {
    const labels = { site: 'porto', note: 'a=b' };
    expect(parseLabels(formatLabels(labels))).toEqual({ labels });
  });

  it('name the first line that is none', () => {
    expect(parseLabels('site=porto\n\nnonsense')).toEqual({ badLine: 3 });
    expect(parseLabels('=x')).toEqual({ badLine: 1 });
    expect(parseLabels('')).toEqual({ labels: {} });
  });

  it('change by naming what was set and removed, and nothing else', () => {
    const before = { line: '4', site: 'roof', zone: 'a' };
    const after = { line: '5', site: 'roof', new: 'x' };
    expect(labelChanges(before, after)).toEqual({ zone: null, line: '5', new: 'x' });
  });
});
