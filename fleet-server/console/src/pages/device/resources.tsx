/** Memory, CPU, disk and temperature over time. */
import { useDeviceResources, type Reading } from '../../api/devices';
import { LineChart, type Series } from '../../charts/line-chart';
import { usualStep, type Point } from '../../charts/scale';
import { useI18n } from '../../i18n/i18n';
import { Failure, Skeleton } from '../../ui/states';

/** A device reads at a pace of its own; after so many steps without a reading the line breaks. */
const MISSED_READINGS = 2.5;

/** CPU time only rises, except across a restart: there the line breaks. */
export function cpuShare(readings: readonly Reading[]): Point[] {
  return readings.slice(1).map((reading, index) => {
    const before = readings[index];
    const x = new Date(reading.at).getTime();
    const elapsed = before ? x - new Date(before.at).getTime() : 0;
    const used = before ? reading.cpu_ms - before.cpu_ms : -1;
    return { x, y: elapsed > 0 && used >= 0 ? used / elapsed : null };
  });
}

export function DeviceResources({ project, device }: { readonly project: string; readonly device: string }) {
  const { t, format } = useI18n();
  const query = useDeviceResources(project, device);
  if (query.error && !query.data) return <Failure error={query.error} onRetry={() => void query.refetch()} />;
  if (!query.data) return <Skeleton lines={9} />;
  const readings = query.data;
  const points = (value: (reading: Reading) => number | null | undefined): Point[] =>
    readings.map((reading) => ({ x: new Date(reading.at).getTime(), y: value(reading) ?? null }));
  const series = (id: string, label: string, own: readonly Point[]): Series[] => [
    { id, label, points: own, longestGap: MISSED_READINGS * usualStep(own) },
  ];
  const hasTemperature = readings.some((reading) => reading.temperature_c !== null);
  return (
    <div className="grid-2">
      <LineChart
        title={t('device.rss')}
        format={format.bytes}
        include={[0]}
        series={series(
          'rss',
          t('device.rss'),
          points((each) => each.rss_bytes),
        )}
      />
      <LineChart
        title={t('device.cpu')}
        format={(value) => format.percent(value, 1)}
        include={[0, 0.01]}
        series={series('cpu', t('device.cpu'), cpuShare(readings))}
      />
      <LineChart
        title={t('device.disk')}
        format={format.bytes}
        include={[0]}
        series={series(
          'disk',
          t('device.disk'),
          points((each) => each.disk_free_bytes),
        )}
      />
      {hasTemperature ? (
        <LineChart
          title={t('device.temperature')}
          format={(value) => `${format.number(value)}\u202f°C`}
          series={series(
            'temperature',
            t('device.temperature'),
            points((each) => each.temperature_c),
          )}
        />
      ) : (
        <LineChart
          title={t('device.load')}
          format={(value) => format.number(value, 2)}
          include={[0, 1]}
          series={series(
            'load',
            t('device.load'),
            points((each) => each.load1),
          )}
        />
      )}
    </div>
  );
}
