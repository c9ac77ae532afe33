/** What went wrong at the API, as `docs/API.md` words it: callers decide by status or code, people read the message. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
  }
}

export function readApiError(status: number, body: unknown): ApiError {
  if (typeof body === 'object' && body !== null && 'error' in body) {
    const { error } = body;
    if (typeof error === 'object' && error !== null && 'code' in error && 'message' in error) {
      return new ApiError(status, String(error.code), String(error.message));
    }
  }
  return new ApiError(status, 'no_details', `HTTP ${status}`);
}

export function messageOf(error: unknown): string | null {
  if (error === null || error === undefined) return null;
  return error instanceof Error ? error.message : 'unknown error';
}
