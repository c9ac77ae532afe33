/** Who changed what when. */
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { client, set, take, type Schemas } from './client';

export type AuditRow = Schemas['AuditRow'];

export function useAudit(project: string, cursor: string) {
  return useQuery({
    queryKey: ['audit', project, cursor],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/audit', {
          params: { path: { project }, query: set({ cursor, limit: 50 }) },
        }),
      ),
    placeholderData: keepPreviousData,
  });
}
