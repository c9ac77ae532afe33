/** Reported against desired for each model, and the one answer to "why". */
import { Link } from 'react-router';
import { useWhy, type DeviceDetail, type ModelState, type ReleaseName } from '../../api/devices';
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { useServerText } from '../../i18n/server-sentences';
import { Badge } from '../../ui/badge';
import { Digest } from '../../ui/copy';
import { Empty, Notice } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';
import { toneOf, wordOf } from '../../ui/tones';

function ReleaseCell({ release }: { readonly release: ReleaseName | null }) {
  if (!release) return <span className="muted">{NONE}</span>;
  return (
    <span className="row">
      <span className="strong num">{release.version}</span>
      <span className="small muted">
        <Digest value={release.digest} />
      </span>
    </span>
  );
}

interface WhyProps {
  readonly project: string;
  readonly device: string;
  readonly model: string;
}

function Why({ project, device, model }: WhyProps) {
  const { t } = useI18n();
  const server = useServerText();
  const { data } = useWhy(project, device, model);
  if (!data) return null;
  const isOn = data.answer === 'on_release';
  return (
    <Notice
      tone={isOn ? 'ok' : data.answer === 'not_loaded' ? 'bad' : 'info'}
      title={`${model}: ${t(isOn ? 'device.whyOn' : 'device.why')}`}
    >
      <p className="break">{server.sentence(data.message)}</p>
      {data.cause && (
        <p className="break">
          <span className="strong">{wordOf(t, 'cause', data.cause.kind)}.</span> {data.cause.detail}
        </p>
      )}
      <p className="row small">
        {data.since !== null && <RelativeTime at={data.since} />}
        {data.rollout !== null && (
          <Link to={`/p/${project}/rollouts/${data.rollout}`}>{t('rollouts.rollout')}</Link>
        )}
      </p>
    </Notice>
  );
}

export function DeviceModels({
  project,
  device,
}: {
  readonly project: string;
  readonly device: DeviceDetail;
}) {
  const { t } = useI18n();
  const rows = device.models;
  const columns: readonly Column<ModelState>[] = [
    {
      id: 'model',
      header: t('devices.model'),
      cell: (state) => (
        <Link className="row-link" to={`/p/${project}/drift/${state.model}?device=${device.device}`}>
          {state.model}
        </Link>
      ),
      isWide: true,
    },
    { id: 'desired', header: t('device.desired'), cell: ({ desired }) => <ReleaseCell release={desired} /> },
    { id: 'active', header: t('device.active'), cell: (state) => <ReleaseCell release={state.active} /> },
    {
      id: 'sync',
      header: t('device.reported'),
      cell: ({ active, absent, desired }) => {
        if (absent !== null) return <Badge tone="bad">{t('device.notLoaded')}</Badge>;
        if (!desired) return <Badge tone="idle">{t('device.nothingDesired')}</Badge>;
        const isSame = active?.digest === desired.digest;
        return (
          <Badge tone={isSame ? 'ok' : 'warn'}>{t(isSame ? 'device.inSync' : 'device.notInSync')}</Badge>
        );
      },
    },
    {
      id: 'candidate',
      header: t('device.candidate'),
      cell: (state) => <ReleaseCell release={state.candidate} />,
      isSecondary: true,
    },
    {
      id: 'fallback',
      header: t('device.fallback'),
      cell: (state) => <ReleaseCell release={state.fallback} />,
      isSecondary: true,
    },
    {
      id: 'phase',
      header: t('device.phase'),
      cell: (state) => <Badge tone={toneOf(state.phase)}>{wordOf(t, 'phase', state.phase)}</Badge>,
    },
  ];
  return (
    <>
      <Table
        caption={t('device.models')}
        hasCards
        columns={columns}
        rows={rows}
        rowKey={(row) => row.model}
        empty={<Empty title={t('device.nothingDesired')} />}
      />
      {rows.length > 0 && (
        <div className="panel-body stack">
          {rows.map((row) => (
            <Why key={row.model} project={project} device={device.device} model={row.model} />
          ))}
        </div>
      )}
    </>
  );
}
