/** Who changed what when, with the values before and after. */
import { useState } from 'react';
import { useParams } from 'react-router';
import { useAudit, type AuditRow } from '../api/audit';
import { useIsAdmin } from '../api/session';
import { useI18n } from '../i18n/i18n';
import { Button } from '../ui/button';
import { Dialog, DialogBody } from '../ui/dialog';
import { Select } from '../ui/field';
import { ObjectLink } from '../ui/object-link';
import { Filters, Page } from '../ui/page';
import { Pager } from '../ui/pager';
import { Empty } from '../ui/states';
import { Table, type Column } from '../ui/table';
import { AbsoluteTime, RelativeTime } from '../ui/time';
import { useUrlState } from '../ui/url-state';

function Json({ title, value }: { readonly title: string; readonly value: unknown }) {
  if (value === null || value === undefined) return null;
  return (
    <div className="stack">
      <h3>{title}</h3>
      <pre className="json" role="region" aria-label={title} tabIndex={0}>
        {JSON.stringify(value, null, 2)}
      </pre>
    </div>
  );
}

export default function AuditPage() {
  const { t } = useI18n();
  const { project = '' } = useParams();
  const url = useUrlState();
  const isAdmin = useIsAdmin();
  const isServer = isAdmin && url.get('where') === 'server';
  const audit = useAudit(isServer ? null : project, url.get('cursor'));
  const [shown, setShown] = useState<AuditRow | null>(null);
  const columns: readonly Column<AuditRow>[] = [
    { id: 'when', header: t('audit.when'), cell: (row) => <RelativeTime at={row.at} /> },
    { id: 'actor', header: t('audit.actor'), cell: (row) => <span className="break">{row.actor}</span> },
    { id: 'action', header: t('audit.action'), cell: (row) => <code>{row.action}</code> },
    {
      id: 'object',
      header: t('audit.object'),
      cell: (row) => (
        <>
          <span className="muted">{row.object_kind} </span>
          <ObjectLink project={project} kind={row.object_kind} id={row.object} />
        </>
      ),
      isWide: true,
    },
    {
      id: 'change',
      header: <span className="visually-hidden">{t('audit.change')}</span>,
      align: 'end',
      cell: (row) => (
        <Button
          size="small"
          look="quiet"
          aria-label={`${t('audit.show')}: ${row.action}`}
          onPress={() => setShown(row)}
        >
          {t('audit.change')}
        </Button>
      ),
    },
  ];
  return (
    <Page title={t('audit.title')}>
      {isAdmin && (
        <Filters>
          <Select
            label={t('audit.where')}
            options={[
              { id: '', label: t('audit.thisProject') },
              { id: 'server', label: t('audit.wholeServer') },
            ]}
            value={isServer ? 'server' : ''}
            onChange={(where) => url.set({ where, cursor: null })}
          />
        </Filters>
      )}
      <Table
        caption={t('audit.title')}
        hasCards
        columns={columns}
        rows={audit.data?.items}
        rowKey={(row) => row.id}
        error={audit.error}
        onRetry={() => void audit.refetch()}
        skeletonRows={8}
        empty={<Empty title={t('audit.none')} />}
      />
      {audit.data && (
        <Pager
          shown={audit.data.items.length}
          total={audit.data.total}
          isFirst={url.get('cursor') === ''}
          nextCursor={audit.data.next_cursor}
          onCursor={(cursor) => url.set({ cursor })}
        />
      )}
      {shown && (
        <Dialog title={`${shown.action} ${shown.object}`} isOpen onClose={() => setShown(null)} width="wide">
          <DialogBody>
            <p className="muted">
              {shown.actor}, <AbsoluteTime at={shown.at} />
            </p>
            <Json title={t('audit.before')} value={shown.before} />
            <Json title={t('audit.after')} value={shown.after} />
          </DialogBody>
        </Dialog>
      )}
    </Page>
  );
}
