import { Link } from 'react-router';
import { useI18n } from '../i18n/i18n';
import { Page } from '../ui/page';
import { Empty } from '../ui/states';

export default function NotFoundPage() {
  const { t } = useI18n();
  return (
    <Page title={t('notFound.title')}>
      <Empty
        title={t('notFound.title')}
        hint={t('notFound.hint')}
        action={<Link to="/">{t('notFound.home')}</Link>}
      />
    </Page>
  );
}
