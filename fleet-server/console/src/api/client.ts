/** The one way to the server: typed by docs/openapi.json, errors as `ApiError`, a lost session goes to the sign-in page. */
import createClient from 'openapi-fetch';
import { readApiError, type ApiError } from './errors';
import type { components, paths } from './schema';

export type Schemas = components['schemas'];

export const client = createClient<paths>({ baseUrl: '', credentials: 'same-origin' });

interface Answer<T> {
  readonly data?: T;
  readonly error?: unknown;
  readonly response: Response;
}

type LostSession = (error: ApiError) => void;
let onLostSession: LostSession = () => undefined;

/** Called when the server says that nobody is signed in any more. */
export function whenSessionIsLost(callback: LostSession): void {
  onLostSession = callback;
}

/** The answer's body, or the server's error thrown. */
export async function take<T>(call: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) {
    const refusal = readApiError(response.status, error);
    if (response.status === 401) onLostSession(refusal);
    throw refusal;
  }
  return data as T; // openapi-fetch: a success has the data of its status.
}

/** Whether a server is there, signed in or not. */
export async function serverAnswers(): Promise<boolean> {
  try {
    await client.GET('/api/v1/session');
    return true;
  } catch {
    return false;
  }
}

/** Parameters that are not set are left out of the address. */
export function set<T extends Record<string, unknown>>(query: T): { [K in keyof T]?: Exclude<T[K], ''> } {
  return Object.fromEntries(
    Object.entries(query).filter(([, value]) => value !== '' && value !== undefined),
  ) as {
    [K in keyof T]?: Exclude<T[K], ''>;
  };
}
