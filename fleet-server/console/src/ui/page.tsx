/** The frame of a page: crumbs, title, what can be done here. Sets the document's title. */
import { useEffect, type ReactNode } from 'react';
import { Link } from 'react-router';
import { useI18n } from '../i18n/i18n';
import './page.css';

export interface Crumb {
  readonly to: string;
  readonly label: string;
}

interface PageProps {
  readonly title: string;
  readonly crumbs?: readonly Crumb[];
  readonly badges?: ReactNode;
  readonly subtitle?: ReactNode;
  readonly actions?: ReactNode;
  readonly children: ReactNode;
}

export function Page({ title, crumbs = [], badges, subtitle, actions, children }: PageProps) {
  const { t } = useI18n();
  useEffect(() => {
    document.title = `${title} · Flotilla`;
  }, [title]);
  return (
    <div className="page">
      <header className="page-header">
        <div className="page-heading">
          {crumbs.length > 0 && (
            <nav aria-label={t('nav.crumbs')}>
              <ol className="crumbs">
                {crumbs.map((crumb) => (
                  <li key={crumb.to}>
                    <Link to={crumb.to}>{crumb.label}</Link>
                  </li>
                ))}
              </ol>
            </nav>
          )}
          <div className="page-title">
            <h1>{title}</h1>
            {badges}
          </div>
          {subtitle !== undefined && <div className="muted">{subtitle}</div>}
        </div>
        {actions !== undefined && <div className="page-actions">{actions}</div>}
      </header>
      {children}
    </div>
  );
}

/** Filters above a list; they wrap where it is narrow. */
export function Filters({ children }: { readonly children: ReactNode }) {
  const { t } = useI18n();
  return (
    <search className="filters" aria-label={t('filters.title')}>
      {children}
    </search>
  );
}
