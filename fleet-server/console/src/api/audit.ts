/** Who changed what when. */
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { client, set, take, type Schemas } from './client';

export type AuditRow = Schemas['AuditRow'];

/** `project` is null for what concerns the whole server: users, tokens, sign-ins. */
export function useAudit(project: string | null, cursor: string) {
  const query = set({ cursor, limit: 50 });
  return useQuery({
    queryKey: ['audit', project, cursor],
    queryFn: () =>
      project === null
        ? take(client.GET('/api/v1/audit', { params: { query } }))
        : take(client.GET('/api/v1/projects/{project}/audit', { params: { path: { project }, query } })),
    placeholderData: keepPreviousData,
  });
}
