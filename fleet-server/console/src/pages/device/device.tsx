/** One device: what it says, what it should, what it holds back, what happened to it. */
import { Link, useParams } from 'react-router';
import { useDevice, type DeviceDetail } from '../../api/devices';
import { useCan } from '../../api/session';
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { Badge } from '../../ui/badge';
import { LabelTags } from '../../ui/labels';
import { Page } from '../../ui/page';
import { Facts, Panel, Stat, Stats } from '../../ui/panel';
import { Failure, Notice, Skeleton } from '../../ui/states';
import { AbsoluteTime, RelativeTime } from '../../ui/time';
import { ConnectionBadge } from '../devices';
import { DeviceActions } from './actions';
import { CpuFeatures } from './cpu-features';
import { DeviceHistory } from './history';
import { DeviceLogs } from './logs';
import { DeviceModels } from './models';
import { DeviceResources } from './resources';

function Problems({ device }: { readonly device: DeviceDetail }) {
  const { t } = useI18n();
  if (device.problems.length === 0) return null;
  return (
    <Notice tone="warn" title={t('device.problems')}>
      <ul>
        {device.problems.map((problem) => (
          <li key={problem} className="break">
            {problem}
          </li>
        ))}
      </ul>
    </Notice>
  );
}

function Identity({ device }: { readonly device: DeviceDetail }) {
  const { t, format } = useI18n();
  const hardware = device.hardware;
  return (
    <Facts
      items={[
        [t('device.labels'), <LabelTags key="labels" labels={device.labels} />],
        [t('device.agent'), device.agent_version ?? NONE],
        [t('device.target'), device.target === null ? NONE : <code>{device.target}</code>],
        [t('device.class'), hardware?.class ?? NONE],
        [t('device.arch'), hardware?.arch ?? NONE],
        [t('device.cpus'), format.number(hardware?.cpus)],
        [t('device.memory'), format.bytes(hardware?.memory_bytes)],
        [t('device.uptime'), format.seconds(device.uptime_s)],
        [t('device.clock'), <Clock key="clock" isPlausible={device.is_clock_plausible} />],
        [t('device.certificate'), <AbsoluteTime key="certificate" at={device.certificate_expires_at} />],
        [t('device.created'), <AbsoluteTime key="created" at={device.created_at} />],
        [t('device.cpuFeatures'), <CpuFeatures key="features" features={hardware?.cpu_features} />],
      ]}
    />
  );
}

function Clock({ isPlausible }: { readonly isPlausible: boolean | null }) {
  const { t } = useI18n();
  if (isPlausible === null) return NONE;
  return (
    <Badge tone={isPlausible ? 'ok' : 'bad'}>{t(isPlausible ? 'device.clockOk' : 'device.clockBad')}</Badge>
  );
}

function TelemetryStats({ device }: { readonly device: DeviceDetail }) {
  const { t, format } = useI18n();
  const { spool, metadata } = device;
  const dropped = (spool?.dropped ?? []).reduce((sum, loss) => sum + loss.count, 0);
  return (
    <Stats>
      <Stat label={t('device.lastSeen')} value={<RelativeTime at={device.last_seen} />} />
      <Stat
        label={t('device.spoolDepth')}
        value={format.number(spool?.depth_records)}
        detail={spool ? `${t('device.records')}, ${format.bytes(spool.depth_bytes)}` : NONE}
      />
      <Stat
        label={t('device.dropped')}
        value={format.number(spool === null ? null : dropped)}
        detail={
          dropped === 0
            ? t('device.nothingDropped')
            : spool?.dropped
                .map((loss) => `${loss.kind} ${loss.cause}: ${format.number(loss.count)}`)
                .join(', ')
        }
      />
      <Stat
        label={t('device.metadataAge')}
        value={metadata ? format.seconds(metadata.age_s) : t('device.metadataNone')}
        detail={
          metadata !== null && (
            <>
              {t('device.metadataExpires')} <RelativeTime at={metadata.expires_at} />
            </>
          )
        }
      />
      <Stat
        label={t('device.desiredRevision')}
        value={t('device.revisions', {
          accepted: device.reported_revision ?? 0,
          desired: device.desired_revision,
        })}
      />
    </Stats>
  );
}

export default function DevicePage() {
  const { t } = useI18n();
  const { project = '', device: id = '' } = useParams();
  const can = useCan(project);
  const query = useDevice(project, id);
  const device = query.data;
  const crumbs = [{ to: `/p/${project}/devices`, label: t('devices.title') }];
  if (!device) {
    return (
      <Page title={id} crumbs={crumbs}>
        {query.error ? (
          <Failure error={query.error} onRetry={() => void query.refetch()} />
        ) : (
          <Skeleton lines={12} />
        )}
      </Page>
    );
  }
  return (
    <Page
      title={id}
      crumbs={crumbs}
      badges={<ConnectionBadge device={device} />}
      actions={can('operator') && <DeviceActions project={project} device={device} />}
    >
      <Problems device={device} />
      <TelemetryStats device={device} />
      <Panel title={t('device.models')} isFlush>
        <DeviceModels project={project} device={device} />
      </Panel>
      <Panel
        title={t('device.resources')}
        actions={
          device.models[0] && (
            <Link to={`/p/${project}/drift/${device.models[0].model}?device=${id}`}>{t('device.drift')}</Link>
          )
        }
      >
        <DeviceResources project={project} device={id} />
      </Panel>
      <Panel title={t('device.identity')}>
        <Identity device={device} />
      </Panel>
      <DeviceHistory project={project} device={id} />
      {can('operator') && <DeviceLogs project={project} device={id} />}
    </Page>
  );
}
