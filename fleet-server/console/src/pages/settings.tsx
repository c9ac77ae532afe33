/** Users (for administrators) and the person's API tokens. */
import { useParams } from 'react-router';
import { useIsAdmin } from '../api/session';
import { useI18n } from '../i18n/i18n';
import { Page } from '../ui/page';
import { TokensPanel } from './settings/tokens';
import { UsersPanel } from './settings/users';

export default function SettingsPage() {
  const { t } = useI18n();
  const { project = '' } = useParams();
  const isAdmin = useIsAdmin();
  return (
    <Page title={t('settings.title')}>
      <TokensPanel project={project} />
      {isAdmin ? <UsersPanel project={project} /> : <p className="muted small">{t('users.onlyAdmin')}</p>}
    </Page>
  );
}
