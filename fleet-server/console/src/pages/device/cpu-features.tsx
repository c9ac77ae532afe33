/** A CPU's features: how many, those first that make int8 models fast, the rest when asked for. */
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';

/** What 8-bit kernels can use, the fastest first, as Linux names them. */
const FOR_INT8 = [
  'amx_int8',
  'avx512_vnni',
  'avx_vnni',
  'avx512f',
  'avx2',
  'i8mm',
  'asimddp',
  'asimd',
  'neon',
] as const;

export function int8Features(features: readonly string[]): readonly string[] {
  return FOR_INT8.filter((name) => features.includes(name));
}

export function CpuFeatures({ features }: { readonly features: readonly string[] | undefined }) {
  const { t } = useI18n();
  if (features === undefined || features.length === 0) return NONE;
  const first = int8Features(features);
  const others = features.filter((name) => !first.includes(name));
  return (
    <details className="cpu-features small">
      <summary>
        {t('device.featureCount', { n: features.length })}
        {first.length > 0 && (
          <>
            {': '}
            <code>{first.join(' ')}</code>
          </>
        )}
      </summary>
      <code className="muted">{others.join(' ')}</code>
    </details>
  );
}
