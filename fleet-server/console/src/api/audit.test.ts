import { describe, expect, it } from 'vitest';
import { sinceOf } from './audit';

describe('the day since which changes are shown', () => {
  it("begins on the person's own clock, and is nothing while it is half-written", () => {
    expect(sinceOf('2026-11-21')).toBe(new Date(2026, 10, 21).toISOString());
    expect(sinceOf('')).toBe('');
    expect(sinceOf('yesterday')).toBe('');
  });
});
