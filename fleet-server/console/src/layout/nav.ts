/** The pages of a project, in the order of the navigation. */
import type { MessageKey } from '../i18n/types';
import type { IconName } from '../ui/icons';

interface NavItem {
  readonly path: string;
  readonly label: Extract<MessageKey, `nav.${string}`>;
  readonly icon: IconName;
}

export const NAV: readonly NavItem[] = [
  { path: 'overview', label: 'nav.overview', icon: 'overview' },
  { path: 'devices', label: 'nav.devices', icon: 'devices' },
  { path: 'releases', label: 'nav.releases', icon: 'releases' },
  { path: 'rollouts', label: 'nav.rollouts', icon: 'rollouts' },
  { path: 'drift', label: 'nav.drift', icon: 'drift' },
  { path: 'alerts', label: 'nav.alerts', icon: 'alerts' },
  { path: 'audit', label: 'nav.audit', icon: 'audit' },
  { path: 'settings', label: 'nav.settings', icon: 'settings' },
];
