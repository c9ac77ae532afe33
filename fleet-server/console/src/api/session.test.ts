import { describe, expect, it } from 'vitest';
import { safePath } from '../pages/login';
import { readApiError } from './errors';
import { roleIn } from './session';

describe('roles', () => {
  it('come from the project or from all projects, the higher one counts', () => {
    const grants = [
      { project: '*', role: 'viewer' },
      { project: 'porto', role: 'publisher' },
    ] as const;
    expect(roleIn(grants, 'porto')).toBe('publisher');
    expect(roleIn(grants, 'other')).toBe('viewer');
    expect(roleIn([], 'porto')).toBeUndefined();
  });
});

describe('the way back after sign-in', () => {
  it('leads only into this console', () => {
    expect(safePath('/p/demo/devices?q=a')).toBe('/p/demo/devices?q=a');
    for (const bad of [
      '//evil.example',
      'https://evil.example',
      'javascript:alert(1)',
      undefined,
      3,
      '/login',
    ]) {
      expect(safePath(bad)).toBe('/');
    }
  });
});

describe('errors', () => {
  it('keep the code and the sentence of the server', () => {
    const error = readApiError(409, {
      error: { code: 'wrong_state', message: 'It has ended.', details: {} },
    });
    expect([error.status, error.code, error.message]).toEqual([409, 'wrong_state', 'It has ended.']);
    expect(readApiError(502, '<html>').code).toBe('no_details');
  });
});
