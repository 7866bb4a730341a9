-- One row a target code. Without CMS's mappings of procedures (ICD_GEM_LOCATION) an ICD-9-CM code stays what it is.
with written as (
    select
        *,
        case
            when regexp_full_match(upper(code_system), 'ICD.?9.?(CM|PCS|PROC)?') then 'ICD9CM'
            when regexp_full_match(upper(code_system), 'ICD.?10.?(PCS)?') then 'ICD10PCS'
        end as system_known,
        replace(upper(trim(code)), '.', '') as code_plain,
        (select count(*) from {{ source('dictionary', 'icd9_procedure_gem') }}) > 0 as is_installed
    from {{ source('input', 'procedures') }}
),

mapped as (
    select
        written.*,
        gem.icd10,
        case
            when written.code_system is null then 'unknown_version'
            when written.system_known is null then 'other_system'
            when
                written.system_known = 'ICD10PCS'
                and regexp_full_match(written.code_plain, '[0-9A-HJ-NP-Z]{7}')
                then 'native'
            when written.system_known = 'ICD10PCS' then 'malformed'
            when gem.targets > 1 then 'one_to_many'
            when gem.icd9 is not null and gem.icd10 is null then 'no_map'
            when gem.icd9 is not null and gem.approximate then 'approximate'
            when gem.icd9 is not null then 'exact'
            when not regexp_full_match(written.code_plain, '[0-9]{2,4}') then 'malformed'
            when written.is_installed then 'obsolete'
            else 'native'
        end as mapping,
        coalesce(gem.mapping_rank, 1) as mapping_rank,
        coalesce(gem.weight, 1) as weight,
        gem.approximate,
        gem.combination,
        gem.scenario,
        gem.choice_list,
        gem.gem_edition
    from written
    left join {{ source('dictionary', 'icd9_procedure_gem') }} as gem
        on written.code_plain = gem.icd9 and written.system_known = 'ICD9CM'
)

select
    hospital,
    patient_id,
    visit_id,
    code as code_raw,
    code_system as system_raw,
    case
        when mapping = 'other_system' then code
        when mapping = 'native' then code_plain
        else icd10
    end as code,
    case
        when mapping = 'other_system' then code_system
        when mapping = 'native' then system_known
        when icd10 is not null then 'ICD10PCS'
    end as system,
    mapping,
    mapping_rank,
    cast(weight as double) as weight,
    approximate,
    combination,
    scenario,
    choice_list,
    case
        when mapping = 'native' and system_known = 'ICD9CM' then 'none: ICD_GEM_LOCATION names no file for procedures'
        else gem_edition
    end as gem_edition,
    text as title_raw,
    event_at,
    end_at,
    {{ known_at('available_at', 'event_at') }} as available_at,
    row_id
from mapped
