/** API tokens for the command line and scripts. */
import { useState } from 'react';
import { messageOf } from '../../api/errors';
import { ROLES, useCan, type Role } from '../../api/session';
import { useCreateToken, useDeleteToken, useTokens, type ApiToken } from '../../api/users';
import { useI18n } from '../../i18n/i18n';
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
import '../device/enrol.css';

const LIFETIMES = ['24', '168', '720', '0'] as const;

export function TokensPanel({ project }: { readonly project: string }) {
  const { t } = useI18n();
  const tokens = useTokens();
  const remove = useDeleteToken();
  const creating = useOpen();
  const [asked, setAsked] = useState<ApiToken | null>(null);
  const close = () => {
    remove.reset();
    setAsked(null);
  };
  const columns: readonly Column<ApiToken>[] = [
    {
      id: 'title',
      header: t('tokens.name'),
      cell: (row) => <span className="strong break">{row.title}</span>,
    },
    {
      id: 'role',
      header: t('users.role'),
      cell: (row) =>
        `${wordOf(t, 'role', row.role)}, ${row.project === '*' ? t('users.allProjects') : row.project}`,
    },
    { id: 'user', header: t('users.user'), cell: (row) => row.username, isSecondary: true },
    {
      id: 'created',
      header: t('tokens.created'),
      cell: (row) => <RelativeTime at={row.created_at} />,
      isSecondary: true,
    },
    {
      id: 'expires',
      header: t('tokens.expires'),
      cell: (row) => (row.expires_at === null ? t('tokens.never') : <RelativeTime at={row.expires_at} />),
      isSecondary: true,
    },
    {
      id: 'used',
      header: t('tokens.lastUsed'),
      cell: (row) => (row.last_used_at === null ? t('tokens.never') : <RelativeTime at={row.last_used_at} />),
      isSecondary: true,
    },
    {
      id: 'revoke',
      header: <span className="visually-hidden">{t('action.revoke')}</span>,
      align: 'end',
      cell: (row) => (
        <Button
          size="small"
          look="quiet"
          aria-label={`${t('action.revoke')}: ${row.title}`}
          onPress={() => setAsked(row)}
        >
          {t('action.revoke')}
        </Button>
      ),
    },
  ];
  return (
    <Panel
      title={t('tokens.title')}
      note={t('tokens.note')}
      actions={<Button onPress={creating.open}>{t('tokens.new')}</Button>}
      isFlush
    >
      <Table
        caption={t('tokens.title')}
        columns={columns}
        rows={tokens.data}
        rowKey={(row) => row.id}
        error={tokens.error}
        onRetry={() => void tokens.refetch()}
        skeletonRows={2}
        empty={<Empty title={t('tokens.none')} />}
      />
      {creating.isOpen && <NewTokenDialog project={project} onClose={creating.close} />}
      {asked && (
        <Confirm
          title={`${t('action.revoke')}: ${asked.title}`}
          text={t('tokens.revokeText', { name: asked.title })}
          action={t('action.revoke')}
          isDangerous
          isPending={remove.isPending}
          error={messageOf(remove.error)}
          onConfirm={() => remove.mutate(asked.id, { onSuccess: close })}
          onClose={close}
        />
      )}
    </Panel>
  );
}

function NewTokenDialog({ project, onClose }: { readonly project: string; readonly onClose: () => void }) {
  const { t } = useI18n();
  const create = useCreateToken();
  const can = useCan(project);
  const [title, setTitle] = useState('');
  const [role, setRole] = useState<Role>('viewer');
  const [hours, setHours] = useState<string>('720');
  if (create.data) {
    return (
      <SecretDialog
        title={t('tokens.new')}
        text={create.data.text}
        copyLabel={t('tokens.copy')}
        onClose={onClose}
      />
    );
  }
  const submit = () => {
    create.mutate({ title, project, role, lifetimeS: Number(hours) * 3_600 });
  };
  return (
    <FormDialog
      title={t('tokens.new')}
      action={t('action.create')}
      isPending={create.isPending}
      error={messageOf(create.error)}
      onSubmit={submit}
      onClose={onClose}
    >
      <TextField
        label={t('tokens.name')}
        hint={t('tokens.nameHint')}
        value={title}
        onChange={setTitle}
        isRequired
        autoFocus
      />
      <Select
        label={t('users.role')}
        options={ROLES.filter(can).map((id) => ({ id, label: t(`role.${id}`) }))}
        value={role}
        onChange={(id) => setRole(ROLES.find((each) => each === id) ?? 'viewer')}
      />
      <Select
        label={t('enrol.expires')}
        options={LIFETIMES.map((id) => ({
          id,
          label: id === '0' ? t('tokens.forever') : t(`enrol.hours.${id}`),
        }))}
        value={hours}
        onChange={setHours}
      />
    </FormDialog>
  );
}
