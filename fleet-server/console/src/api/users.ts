/** Local users and API tokens. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { client, take, type Schemas } from './client';
import type { Role } from './session';

export type User = Schemas['User'];
export type ApiToken = Schemas['ApiToken'];

export interface Grant {
  readonly project: string;
  readonly role: Role;
}

export function useUsers(isEnabled: boolean) {
  return useQuery({
    queryKey: ['users'],
    queryFn: async () => (await take(client.GET('/api/v1/users'))).items,
    enabled: isEnabled,
  });
}

function useChange<Variables, Result>(key: string, mutationFn: (variables: Variables) => Promise<Result>) {
  const queries = useQueryClient();
  return useMutation({ mutationFn, onSuccess: () => void queries.invalidateQueries({ queryKey: [key] }) });
}

export function useCreateUser() {
  return useChange('users', (user: { readonly username: string; readonly grant: Grant }) =>
    take(client.POST('/api/v1/users', { body: { username: user.username, grants: [user.grant] } })),
  );
}

export function useDeleteUser() {
  return useChange('users', (user: string) =>
    take(client.DELETE('/api/v1/users/{user}', { params: { path: { user } } })),
  );
}

export function useChangeUser() {
  return useChange(
    'users',
    (change: {
      readonly username: string;
      readonly grants: readonly Grant[];
      readonly isDisabled: boolean;
    }) =>
      take(
        client.PATCH('/api/v1/users/{user}', {
          params: { path: { user: change.username } },
          body: { grants: [...change.grants], is_disabled: change.isDisabled },
        }),
      ),
  );
}

export function useResetPassword() {
  return useChange('users', (user: string) =>
    take(
      client.PATCH('/api/v1/users/{user}', { params: { path: { user } }, body: { reset_password: true } }),
    ),
  );
}

export function useTokens() {
  return useQuery({
    queryKey: ['tokens'],
    queryFn: async () => (await take(client.GET('/api/v1/tokens'))).items,
  });
}

export interface NewToken extends Grant {
  readonly title: string;
  /** 0: never ends by itself. */
  readonly lifetimeS: number;
}

export function useCreateToken() {
  return useChange('tokens', ({ title, project, role, lifetimeS }: NewToken) =>
    take(
      client.POST('/api/v1/tokens', {
        body: {
          title,
          project,
          role,
          expires_at: lifetimeS > 0 ? new Date(Date.now() + lifetimeS * 1_000).toISOString() : null,
        },
      }),
    ),
  );
}

export function useDeleteToken() {
  return useChange('tokens', (token: string) =>
    take(client.DELETE('/api/v1/tokens/{token}', { params: { path: { token } } })),
  );
}
