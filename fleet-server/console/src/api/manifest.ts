/** A release's manifest, as the release crate writes it to JSON. The OpenAPI passes it through as an object. */
import type { ReleaseRef } from './plan';

export interface BlobRef {
  readonly digest: string;
  readonly size_bytes: number;
  readonly media_type: string;
}

export interface Variant {
  readonly name: string;
  readonly precision: string;
  readonly model: BlobRef;
  readonly peak_memory_bytes: number;
  readonly accuracy?: number | null;
}

export interface TensorSpec {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
}

export interface Manifest {
  readonly model: string;
  readonly version: string;
  readonly counter: number;
  readonly created: string;
  readonly min_agent_version: string;
  readonly min_counter: number;
  readonly hardware: {
    readonly arch: readonly string[];
    readonly cpu_features: readonly string[];
    readonly class: readonly string[];
  };
  readonly runtime: { readonly tract: string; readonly opset: number };
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly variants: readonly Variant[];
  readonly labels: readonly string[];
  readonly reference: BlobRef;
  readonly golden: BlobRef;
  readonly card: BlobRef;
  readonly budgets: { readonly latency_p95_us: number; readonly memory_bytes: number };
  readonly probation: {
    readonly duration_s: number;
    readonly max_error_percent: number;
    readonly max_p95_us: number;
    readonly min_requests: number;
  };
  readonly fallback: readonly ReleaseRef[];
  readonly lineage: Readonly<Record<string, string>>;
  /** What may leave the device beside counters. */
  readonly privacy: { readonly may_send_samples: boolean; readonly sample_days?: number | null };
}

/** `FP32 [batch, 8, 8]`; -1 is the batch. */
export function tensorText(tensor: TensorSpec): string {
  return `${tensor.name}: ${tensor.datatype} [${tensor.shape.map((size) => (size === -1 ? 'batch' : size)).join(', ')}]`;
}
