/** The model card: Markdown of the publisher, shown as text with headings, lists and tables; never as HTML. */
import { useI18n } from '../../i18n/i18n';
import { parseCard, type Block } from './markdown';
import './card.css';

function CardBlock({ block }: { readonly block: Block }) {
  switch (block.kind) {
    case 'heading':
      return block.level <= 1 ? <h3>{block.text}</h3> : <h4>{block.text}</h4>;
    case 'list':
      return (
        <ul>
          {block.items.map((item, index) => (
            <li key={index}>{item}</li>
          ))}
        </ul>
      );
    case 'table':
      return (
        <div className="table-scroll" role="region" aria-label={block.header.join(', ')} tabIndex={0}>
          <table className="table">
            <thead>
              <tr>
                {block.header.map((cell, index) => (
                  <th key={index} scope="col">
                    {cell}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {block.rows.map((row, index) => (
                <tr key={index}>
                  {row.map((cell, at) => (
                    <td key={at}>{cell}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      );
    case 'code':
      return <pre className="json">{block.text}</pre>;
    case 'paragraph':
      return <p>{block.text}</p>;
  }
}

export function ModelCard({ text }: { readonly text: string | null }) {
  const { t } = useI18n();
  if (text === null) return <p className="muted">{t('release.noCard')}</p>;
  return (
    <div className="card-text">
      {parseCard(text).map((block, index) => (
        <CardBlock key={index} block={block} />
      ))}
    </div>
  );
}
