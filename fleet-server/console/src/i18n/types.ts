/** Messages are typed by the English catalogue: a missing key, a missing translation or a missing parameter does not compile. */
import type { en } from './en';

/** One text, or one per plural category of the parameter `n`. */
export type Message = string | { readonly one: string; readonly other: string };

export type MessageKey = keyof typeof en;
export type Catalogue = Readonly<Record<MessageKey, Message>>;

type ParamNames<S> = S extends `${string}{${infer Name}}${infer Rest}` ? Name | ParamNames<Rest> : never;
type Texts<M> = M extends { readonly one: infer One; readonly other: infer Other } ? One | Other : M;

export type ParamsOf<K extends MessageKey> = ParamNames<Texts<(typeof en)[K]>>;
export type Value = string | number;

/** The arguments after the key: none for a text without parameters. */
export type Args<K extends MessageKey> = [ParamsOf<K>] extends [never]
  ? []
  : [params: Readonly<Record<ParamsOf<K>, Value>>];

export type Translate = <K extends MessageKey>(key: K, ...args: Args<K>) => string;

export const LOCALES = ['en', 'pt-BR'] as const;
export type Locale = (typeof LOCALES)[number];
