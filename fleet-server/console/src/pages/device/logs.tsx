/** The agent's own log lines, as the newest command brought them. */
import { useDeviceLogs } from '../../api/devices';
import { useI18n } from '../../i18n/i18n';
import { Panel } from '../../ui/panel';
import { Empty, Failure, Skeleton } from '../../ui/states';
import { RelativeTime } from '../../ui/time';
import './logs.css';

export function DeviceLogs({ project, device }: { readonly project: string; readonly device: string }) {
  const { t } = useI18n();
  const logs = useDeviceLogs(project, device);
  const newest = logs.data?.items[0];
  return (
    <Panel title={t('device.logs')} actions={newest && <RelativeTime at={newest.received_at} />}>
      {logs.error ? (
        <Failure error={logs.error} onRetry={() => void logs.refetch()} />
      ) : !logs.data ? (
        <Skeleton lines={4} />
      ) : !newest ? (
        <Empty title={t('device.noLogs')} hint={t('device.noLogsHint')} />
      ) : (
        // Scrolls by itself, so the keyboard must reach it.
        <pre className="log-lines" tabIndex={0} role="region" aria-label={t('device.logs')}>
          {newest.lines.join('\n')}
        </pre>
      )}
    </Panel>
  );
}
