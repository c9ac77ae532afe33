/** Who changed what when. */
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { client, set, take, type Schemas } from './client';

export type AuditRow = Schemas['AuditRow'];

export interface AuditFilter {
  /** Exactly this person, token or device. */
  readonly actor: string;
  /** Beginning of an action's name. */
  readonly action: string;
  /** Exactly this object's id. */
  readonly object: string;
  /** RFC 3339. */
  readonly since: string;
  readonly cursor: string;
}

/** `project` is null for what concerns the whole server: users, tokens, sign-ins. */
export function useAudit(project: string | null, filter: AuditFilter) {
  const query = set({ ...filter, limit: 50 });
  return useQuery({
    queryKey: ['audit', project, query],
    queryFn: () =>
      project === null
        ? take(client.GET('/api/v1/audit', { params: { query } }))
        : take(client.GET('/api/v1/projects/{project}/audit', { params: { path: { project }, query } })),
    placeholderData: keepPreviousData,
  });
}

/** The beginning of a day on the person's clock, as the API takes it; nothing while the day is half-written. */
export function sinceOf(day: string): string {
  const at = new Date(`${day}T00:00`);
  return Number.isNaN(at.getTime()) ? '' : at.toISOString();
}
