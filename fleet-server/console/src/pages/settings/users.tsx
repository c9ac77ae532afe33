/** Local users and their grants. For administrators of the whole server. */
import { useState } from 'react';
import { messageOf } from '../../api/errors';
import { ROLES, useSession, type Role } from '../../api/session';
import { useCreateUser, useDeleteUser, useResetPassword, useUsers, type User } from '../../api/users';
import { useI18n } from '../../i18n/i18n';
import { Badge, Tag } from '../../ui/badge';
import { Button } from '../../ui/button';
import { Confirm, FormDialog } from '../../ui/dialog';
import { Select, TextField } from '../../ui/field';
import { Panel } from '../../ui/panel';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';
import { wordOf } from '../../ui/tones';
import { useOpen } from '../../ui/use-open';
import { SecretDialog } from './secret';
import { RightsDialog } from './user-rights';

interface Question {
  readonly what: 'delete' | 'reset';
  readonly user: string;
}

export function UsersPanel({ project }: { readonly project: string }) {
  const { t } = useI18n();
  const session = useSession();
  const users = useUsers(true);
  const creating = useOpen();
  const [question, setQuestion] = useState<Question | null>(null);
  const [editing, setEditing] = useState<User | null>(null);
  const columns: readonly Column<User>[] = [
    {
      id: 'user',
      header: t('users.user'),
      cell: (row) => (
        <span className="row">
          <span className="strong break">{row.username}</span>
          {row.must_change_password && <Badge tone="warn">{t('users.password')}</Badge>}
          {row.is_disabled && <Badge tone="idle">{t('users.disabled')}</Badge>}
        </span>
      ),
    },
    {
      id: 'roles',
      header: t('users.roles'),
      cell: (row) => (
        <span className="row">
          {row.grants.map((grant) => (
            <Tag key={`${grant.project} ${grant.role}`}>
              {wordOf(t, 'role', grant.role)},{' '}
              {grant.project === '*' ? t('users.allProjects') : grant.project}
            </Tag>
          ))}
        </span>
      ),
    },
    {
      id: 'created',
      header: t('tokens.created'),
      cell: (row) => <RelativeTime at={row.created_at} />,
      isSecondary: true,
    },
    {
      id: 'actions',
      header: <span className="visually-hidden">{t('audit.action')}</span>,
      align: 'end',
      cell: (row) =>
        row.username === session.data?.user ? null : (
          <span className="row">
            <Button
              size="small"
              look="quiet"
              aria-label={`${t('users.rights')}: ${row.username}`}
              onPress={() => setEditing(row)}
            >
              {t('users.rights')}
            </Button>
            <Button
              size="small"
              look="quiet"
              aria-label={`${t('users.reset')}: ${row.username}`}
              onPress={() => setQuestion({ what: 'reset', user: row.username })}
            >
              {t('users.reset')}
            </Button>
            <Button
              size="small"
              look="quiet"
              aria-label={`${t('action.delete')}: ${row.username}`}
              onPress={() => setQuestion({ what: 'delete', user: row.username })}
            >
              {t('action.delete')}
            </Button>
          </span>
        ),
      isWide: true,
    },
  ];
  return (
    <Panel
      title={t('users.title')}
      actions={<Button onPress={creating.open}>{t('users.new')}</Button>}
      isFlush
    >
      <Table
        caption={t('users.title')}
        columns={columns}
        rows={users.data}
        rowKey={(row) => row.username}
        error={users.error}
        onRetry={() => void users.refetch()}
        skeletonRows={2}
        empty={<Empty title={t('users.none')} />}
        hasCards
      />
      {creating.isOpen && <NewUserDialog project={project} onClose={creating.close} />}
      {editing && <RightsDialog user={editing} project={project} onClose={() => setEditing(null)} />}
      {question && <UserQuestion question={question} onClose={() => setQuestion(null)} />}
    </Panel>
  );
}

function UserQuestion({ question, onClose }: { readonly question: Question; readonly onClose: () => void }) {
  const { t } = useI18n();
  const remove = useDeleteUser();
  const reset = useResetPassword();
  const secret = reset.data?.one_time_password;
  if (secret) return <OneTimePassword text={secret} onClose={onClose} />;
  const isDelete = question.what === 'delete';
  const name = question.user;
  return (
    <Confirm
      title={`${t(isDelete ? 'action.delete' : 'users.reset')}: ${name}`}
      text={t(isDelete ? 'users.deleteText' : 'users.resetText', { name })}
      action={t(isDelete ? 'action.delete' : 'users.reset')}
      isDangerous={isDelete}
      isPending={remove.isPending || reset.isPending}
      error={messageOf(remove.error ?? reset.error)}
      onConfirm={() => (isDelete ? remove.mutate(name, { onSuccess: onClose }) : reset.mutate(name))}
      onClose={onClose}
    />
  );
}

function OneTimePassword({ text, onClose }: { readonly text: string; readonly onClose: () => void }) {
  const { t } = useI18n();
  return (
    <SecretDialog
      title={t('users.password')}
      text={text}
      copyLabel={t('users.copyPassword')}
      hint={t('users.passwordHint')}
      onClose={onClose}
    />
  );
}

function NewUserDialog({ project, onClose }: { readonly project: string; readonly onClose: () => void }) {
  const { t } = useI18n();
  const create = useCreateUser();
  const [username, setUsername] = useState('');
  const [role, setRole] = useState<Role>('viewer');
  const [scope, setScope] = useState(project);
  if (create.data) return <OneTimePassword text={create.data.one_time_password} onClose={onClose} />;
  const submit = () => {
    create.mutate({ username: username.trim(), grant: { project: scope, role } });
  };
  return (
    <FormDialog
      title={t('users.new')}
      action={t('action.create')}
      isPending={create.isPending}
      error={messageOf(create.error)}
      onSubmit={submit}
      onClose={onClose}
    >
      <TextField
        label={t('users.name')}
        value={username}
        onChange={setUsername}
        isRequired
        autoFocus
        autoComplete="off"
      />
      <Select
        label={t('users.role')}
        options={ROLES.map((id) => ({ id, label: t(`role.${id}`) }))}
        value={role}
        onChange={(id) => setRole(ROLES.find((each) => each === id) ?? 'viewer')}
      />
      <Select
        label={t('users.project')}
        options={[
          { id: project, label: project },
          { id: '*', label: t('users.allProjects') },
        ]}
        value={scope}
        onChange={setScope}
      />
    </FormDialog>
  );
}
