/** Who is signed in, and what that person may do. */
import { useMutation, useQuery, useQueryClient, type QueryClient } from '@tanstack/react-query';
import { client, take, whenSessionIsLost, type Schemas } from './client';
import { ApiError } from './errors';

export type Role = Schemas['Role'];

export interface Session {
  readonly user: string;
  readonly mustChangePassword: boolean;
  readonly grants: readonly Schemas['GrantBody'][];
}

const KEY = ['session'] as const;
/** Every role includes the ones before it. */
export const ROLES: readonly Role[] = ['viewer', 'operator', 'publisher', 'admin'];
const ALL_PROJECTS = '*';

function read(session: Schemas['Session']): Session {
  return { user: session.username, mustChangePassword: session.must_change_password, grants: session.grants };
}

/** Whether the person was signed in until the server ended it; a first visit and a sign-out end nothing. */
const HAS_ENDED = ['session', 'has-ended'] as const;

export function useHasSessionEnded(): boolean {
  return useQueryClient().getQueryData<boolean>(HAS_ENDED) ?? false;
}

function lose(queries: QueryClient, error: ApiError): void {
  const wasSignedIn = queries.getQueryData<Session | null>(KEY) != null;
  if (wasSignedIn || error.code === 'session_expired') queries.setQueryData(HAS_ENDED, true);
  queries.setQueryData(KEY, null);
}

/** `null`: nobody is signed in. */
export function useSession() {
  const queries = useQueryClient();
  return useQuery<Session | null>({
    queryKey: KEY,
    queryFn: async () => {
      whenSessionIsLost((error) => lose(queries, error));
      try {
        return read(await take(client.GET('/api/v1/session')));
      } catch (error) {
        if (error instanceof ApiError && error.status === 401) return null;
        throw error;
      }
    },
    staleTime: 60_000,
  });
}

function forget(queries: QueryClient): void {
  queries.removeQueries({ predicate: (query) => query.queryKey[0] !== 'session' });
}

export function useSignIn() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (body: Schemas['SignIn']) => read(await take(client.POST('/api/v1/session', { body }))),
    onSuccess: (session) => {
      forget(queries);
      queries.setQueryData(HAS_ENDED, false);
      queries.setQueryData(KEY, session);
    },
  });
}

export function useSignOut() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: () => take(client.DELETE('/api/v1/session')),
    onSettled: () => {
      queries.setQueryData(KEY, null);
      forget(queries);
    },
  });
}

export function useChangePassword() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ current, next }: { readonly current: string; readonly next: string }) =>
      take(client.POST('/api/v1/session/password', { body: { old_password: current, new_password: next } })),
    onSuccess: () => {
      const before = queries.getQueryData<Session>(KEY);
      if (before) queries.setQueryData(KEY, { ...before, mustChangePassword: false });
      return queries.invalidateQueries();
    },
  });
}

/** The role that grants give in a project; none when they give none. */
export function roleIn(grants: Session['grants'], project: string): Role | undefined {
  const ranks = grants
    .filter((grant) => grant.project === project || grant.project === ALL_PROJECTS)
    .map((grant) => ROLES.indexOf(grant.role));
  return ROLES[Math.max(-1, ...ranks)];
}

/** Whether the person may act as `role` here. The server decides; this only hides what would be refused. */
export function useCan(project: string): (role: Role) => boolean {
  const session = useSession();
  const mine = session.data ? roleIn(session.data.grants, project) : undefined;
  return (role) => mine !== undefined && ROLES.indexOf(mine) >= ROLES.indexOf(role);
}

export function useIsAdmin(): boolean {
  const session = useSession();
  return (
    session.data?.grants.some((grant) => grant.project === ALL_PROJECTS && grant.role === 'admin') ?? false
  );
}

/** Projects that the grants name. */
export function projectsOf(session: Session | null | undefined): readonly string[] {
  return (session?.grants ?? []).map((grant) => grant.project).filter((project) => project !== ALL_PROJECTS);
}

export function useProjects() {
  return useQuery({
    queryKey: ['projects'],
    queryFn: async () => (await take(client.GET('/api/v1/projects'))).items.map((each) => each.project),
    staleTime: 60_000,
  });
}
