/** Each variant's precision, accuracy, size and memory: the table by which people choose. */
import type { Manifest, Variant } from '../../api/manifest';
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { Digest } from '../../ui/copy';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';

export function Variants({ manifest }: { readonly manifest: Manifest }) {
  const { t, format } = useI18n();
  const full = manifest.variants.find((variant) => variant.precision === 'f32');
  const columns: readonly Column<Variant>[] = [
    { id: 'name', header: t('release.variant'), cell: (row) => <span className="strong">{row.name}</span> },
    { id: 'precision', header: t('release.precision'), cell: (row) => row.precision, isSecondary: true },
    {
      id: 'accuracy',
      header: t('release.accuracy'),
      cell: (row) => format.percent(row.accuracy, 2),
      align: 'end',
    },
    {
      id: 'size',
      header: t('release.size'),
      cell: (row) => format.bytes(row.model.size_bytes),
      align: 'end',
    },
    {
      id: 'ratio',
      header: t('release.sizeRatio'),
      cell: (row) => (full ? format.percent(row.model.size_bytes / full.model.size_bytes, 0) : NONE),
      align: 'end',
      isSecondary: true,
    },
    {
      id: 'memory',
      header: t('release.memory'),
      cell: (row) => format.bytes(row.peak_memory_bytes),
      align: 'end',
    },
    {
      id: 'blob',
      header: t('release.blob'),
      cell: (row) => <Digest value={row.model.digest} />,
      isSecondary: true,
    },
  ];
  return (
    <Table
      caption={t('release.variants')}
      columns={columns}
      rows={manifest.variants}
      rowKey={(row) => row.name}
      empty={<Empty title={t('unknown')} />}
    />
  );
}
