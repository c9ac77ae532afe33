/** Enrolment tokens: open, used, expired. Never their texts. */
import { useState } from 'react';
import { useEnrolmentTokens, useRevokeEnrolmentToken, type EnrolmentToken } from '../../api/enrolment';
import { messageOf } from '../../api/errors';
import { useI18n } from '../../i18n/i18n';
import { Badge } from '../../ui/badge';
import { Button } from '../../ui/button';
import { Confirm } from '../../ui/dialog';
import { LabelTags } from '../../ui/labels';
import { Panel } from '../../ui/panel';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';

function TokenState({ token }: { readonly token: EnrolmentToken }) {
  const { t } = useI18n();
  if (token.used_by !== null) return <Badge tone="ok">{t('enrol.usedBy', { name: token.used_by })}</Badge>;
  if (token.state === 'expired') return <Badge tone="idle">{t('enrol.expired')}</Badge>;
  return <Badge tone="info">{t('enrol.open')}</Badge>;
}

export function EnrolmentTokens({ project }: { readonly project: string }) {
  const { t } = useI18n();
  const tokens = useEnrolmentTokens(project);
  const revoke = useRevokeEnrolmentToken(project);
  const [asked, setAsked] = useState<EnrolmentToken | null>(null);
  const columns: readonly Column<EnrolmentToken>[] = [
    {
      id: 'device',
      header: t('device.name'),
      cell: (row) => row.device ?? <span className="muted">{t('enrol.anyDevice')}</span>,
    },
    { id: 'state', header: t('enrol.state'), cell: (row) => <TokenState token={row} /> },
    {
      id: 'labels',
      header: t('device.labels'),
      cell: (row) => <LabelTags labels={row.labels} />,
      isSecondary: true,
    },
    { id: 'by', header: t('enrol.by'), cell: (row) => row.created_by, isSecondary: true },
    {
      id: 'expires',
      header: t('tokens.expires'),
      cell: (row) => <RelativeTime at={row.expires_at} />,
      isSecondary: true,
    },
    {
      id: 'revoke',
      header: <span className="visually-hidden">{t('action.revoke')}</span>,
      align: 'end',
      cell: (row) =>
        row.state === 'used' ? null : (
          <Button size="small" look="quiet" onPress={() => setAsked(row)}>
            {t('action.revoke')}
          </Button>
        ),
    },
  ];
  return (
    <Panel title={t('devices.tokens')} isFlush>
      <Table
        caption={t('devices.tokens')}
        columns={columns}
        rows={tokens.data}
        rowKey={(row) => row.id}
        error={tokens.error}
        onRetry={() => void tokens.refetch()}
        skeletonRows={2}
        empty={<Empty title={t('enrol.none')} />}
      />
      {asked && (
        <Confirm
          title={t('action.revoke')}
          text={t('enrol.revokeText')}
          action={t('action.revoke')}
          isDangerous
          isPending={revoke.isPending}
          error={messageOf(revoke.error)}
          onConfirm={() => revoke.mutate(asked.id, { onSuccess: () => setAsked(null) })}
          onClose={() => {
            revoke.reset();
            setAsked(null);
          }}
        />
      )}
    </Panel>
  );
}
